# SPDX-License-Identifier: MIT
"""The promises of a native worker to its HTTP clients and to its master, checked on the real program."""

import contextlib
import ctypes
import email.utils
import errno
import json
import os
import pathlib
import resource
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest
import worker_harness
from worker_harness import BINARY, DEADLINE, DRAINING, READY, Worker, wrapper

BIG = 20 * 1024 * 1024
SECRET = b"nobody may see this"

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    top = tmp_path_factory.mktemp("site")
    (top / "secret.txt").write_bytes(SECRET)
    root = top / "root"
    (root / "folder" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "with space").mkdir()
    (root / "index.html").write_text("<title>root</title>\n")
    (root / "folder" / "index.html").write_text("<title>folder</title>\n")
    (root / "folder" / "deep" / "file.txt").write_text("deep\n")
    (root / "small.txt").write_bytes(b"s" * 1024)
    (root / "zero.bin").write_bytes(b"")
    (root / "ünï %41 x.css").write_text("a{}\n")
    (root / "with space" / "index.html").write_text("space\n")
    (root / "big.bin").write_bytes(os.urandom(BIG))
    (root / "medium.bin").write_bytes(os.urandom(100_000))
    (root / "locked.txt").write_text("no\n")
    (root / "locked.txt").chmod(0)
    os.mkfifo(root / "fifo")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(root / "socket"))
    sock.close()
    (root / "inside.txt").symlink_to("folder/deep/file.txt")
    (root / "inside").symlink_to("folder")
    (root / "outside.txt").symlink_to("../secret.txt")
    (root / "absolute.txt").symlink_to(top / "secret.txt")
    (root / "parent").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "proc").symlink_to("/proc/self/root")
    return root


@contextlib.contextmanager
def started(*args, **kwargs):
    with Worker(*args, **kwargs) as w:
        yield w.wait_state(READY)


@pytest.fixture(scope="module")
def worker(site, tmp_path_factory):
    with started(site, "--whoami", unix_path=tmp_path_factory.mktemp("run") / "sock") as w:
        yield w


RESOLVERS = {
    "openat2": (),
    "walk-enosys": wrapper("without-openat2", errno.ENOSYS),
    "walk-eperm": wrapper("without-openat2", errno.EPERM),
}


@pytest.fixture(scope="module", params=RESOLVERS)
def resolver(request, site):
    with started(site, wrapper=RESOLVERS[request.param]) as w:
        w.walks = request.param != "openat2"
        yield w


# Files


@pytest.mark.parametrize(
    "target, type, body",
    [
        ("/", "text/html; charset=utf-8", b"<title>root</title>\n"),
        ("/index.html?x=1", "text/html; charset=utf-8", b"<title>root</title>\n"),
        ("/folder/", "text/html; charset=utf-8", b"<title>folder</title>\n"),
        ("/folder/deep/file.txt", "text/plain; charset=utf-8", b"deep\n"),
        ("//folder//.//deep/./file.txt", "text/plain; charset=utf-8", b"deep\n"),
        ("/zero.bin", "application/octet-stream", b""),
        ("/%C3%BCn%c3%af%20%2541%20x.css", "text/css; charset=utf-8", b"a{}\n"),
        ("http://other.example:80/folder/", "text/html; charset=utf-8", b"<title>folder</title>\n"),
        ("http://other.example", "text/html; charset=utf-8", b"<title>root</title>\n"),
    ],
)
def test_file_is_served(resolver, target, type, body):
    """A file comes with its type, length, date and validators, whichever way paths are resolved."""
    answer = resolver.get(target)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == type
    assert answer.headers["content-length"] == str(len(body))
    assert answer.headers["etag"].startswith('"')
    for name in ("date", "last-modified"):
        then = email.utils.parsedate_to_datetime(answer.headers[name])
        assert abs(then.timestamp() - time.time()) < 3600


def test_head_has_the_same_head_and_no_body(worker):
    """RFC 9110, section 9.3.2: HEAD answers as GET without content, and the next answer follows directly."""
    with contextlib.closing(worker.connect()) as client:
        for target, status in (("/small.txt", 200), ("/big.bin", 200), ("/nothing", 404), ("/folder", 301)):
            get = client.request(target)
            head = client.request(target, method="HEAD")
            assert (get.status, head.status) == (status, status)
            assert {**get.headers, "date": ""} == {**head.headers, "date": ""}


def test_directory_without_slash_is_redirected(resolver):
    """Relative links of an index work only when the path ends in a slash; the query is kept."""
    answer = resolver.get("/folder?a=b/../c")
    assert (answer.status, answer.headers["location"]) == (301, "/folder/?a=b/../c")
    assert resolver.get("/with%20space").headers["location"] == "/with%20space/"


def test_redirect_never_names_another_host(resolver):
    """Two slashes at the head of a Location would send the client to a host of the attacker's choice."""
    assert resolver.get("//folder").headers["location"] == "/folder/"
    assert resolver.get("///folder").headers["location"] == "/folder/"
    assert resolver.get("http://evil.example/folder").headers["location"] == "/folder/"


@pytest.mark.parametrize(
    "target, status",
    [
        ("/nothing", 404),
        ("/nothing/", 404),
        ("/small.txt/", 404),
        ("/small.txt/x", 404),
        ("/empty/", 403),
        ("/fifo", 404),
        ("/socket", 404),
        ("/loop", 404),
        ("/" + "x" * 300, 404),
        ("/" + "x/" * 2500, 404),
        ("/%2e%2e/secret.txt", 400),
        ("/../secret.txt", 400),
        ("/folder/../../secret.txt", 400),
        ("/folder/..", 400),
        ("/..%2fsecret.txt", 404),
        ("/folder%2fdeep", 404),
        ("/%00", 400),
        ("/index.html%00.txt", 400),
        ("/%", 400),
        ("/%4", 400),
        ("/%zz", 400),
        ("/%252e%252e/secret.txt", 404),
        ("/outside.txt", 404),
        ("/absolute.txt", 404),
        ("/parent/secret.txt", 404),
        ("/proc/etc/passwd", 404),
    ],
)
def test_path_is_refused(resolver, target, status):
    """What is no regular file beneath the folder is refused, with the connection kept, and never served."""
    with contextlib.closing(resolver.connect()) as client:
        answer = client.request(target)
        assert answer.status == status
        assert SECRET not in answer.body and not answer.closes
        assert client.request("/").status == 200


def test_links_beneath_the_folder(resolver):
    """openat2 follows links that stay inside; the walk, which cannot tell where they lead, follows none."""
    expected = (404, 404) if resolver.walks else (200, 200)
    assert (resolver.get("/inside.txt").status, resolver.get("/inside/deep/file.txt").status) == expected


def test_unreadable_file_is_forbidden():
    """403 tells the admin about permissions; needs a worker that is not root."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--") if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is its user's alone
        site = pathlib.Path(folder)
        site.chmod(0o755)
        for name, mode in (("small.txt", 0o644), ("locked.txt", 0)):
            (site / name).write_text("x")
            (site / name).chmod(mode)
        with started(site, wrapper=nobody) as w:
            assert w.get("/locked.txt").status == 403
            assert w.get("/small.txt").status == 200


# Conditions


def test_not_modified(worker):
    """RFC 9110, section 13: a client that has this version gets 304, with validators and without content."""
    with contextlib.closing(worker.connect()) as client:
        full = client.request("/small.txt")
        etag, modified = full.headers["etag"], full.headers["last-modified"]
        for fields in (
            [f"If-None-Match: {etag}"],
            [f'If-None-Match: "a,b" , W/{etag}'],
            ['If-None-Match: "x"', f"If-None-Match: {etag}"],
            ["If-None-Match: *"],
            [f"If-Modified-Since: {modified}"],
            [f"If-None-Match: {etag}", "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"],
        ):
            answer = client.request("/small.txt", headers=fields)
            assert (answer.status, answer.headers["etag"]) == (304, etag), fields
            assert "content-length" not in answer.headers


def test_modified(worker):
    """Other tags, older dates and what is not a condition give the whole file; If-None-Match outranks the date."""
    with contextlib.closing(worker.connect()) as client:
        modified = client.request("/small.txt").headers["last-modified"]
        for fields in (
            ['If-None-Match: "x"'],
            ['If-None-Match: "x"', f"If-Modified-Since: {modified}"],
            ["If-None-Match: x"],
            ["If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"],
            ["If-Modified-Since: yesterday"],
        ):
            assert client.request("/small.txt", headers=fields).status == 200, fields


def test_changed_file_has_another_tag(site, worker):
    """The tag changes with the content even within a second."""
    path = site / "changing.txt"
    path.write_text("one")
    before = worker.get("/changing.txt").headers["etag"]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert worker.get("/changing.txt", headers=[f"If-None-Match: {before}"]).status == 200


def test_date_is_never_in_the_future(site, worker):
    """RFC 9110, section 8.8.2.1: a file from tomorrow was last modified now."""
    path = site / "tomorrow.txt"
    path.write_text("x")
    os.utime(path, (time.time() + 86400, time.time() + 86400))
    headers = worker.get("/tomorrow.txt").headers
    assert headers["last-modified"] == headers["date"]


# Connections


def test_keep_alive(worker):
    """RFC 9112, section 9.3: 1.1 stays unless told to close, 1.0 closes unless asked to stay."""
    with contextlib.closing(worker.connect()) as client:
        for _ in range(3):
            assert not client.request("/small.txt").closes
        answer = client.request("/small.txt", headers=["Connection: foo, close"])
        assert answer.status == 200 and answer.closes and client.at_end()
    with contextlib.closing(worker.connect()) as client:
        answer = client.request("/small.txt", version="1.0", headers=["Connection: Keep-Alive"])
        assert answer.headers["connection"] == "keep-alive"
        answer = client.request("/small.txt", version="1.0")
        assert answer.closes and client.at_end()


def test_pipelined_requests_are_answered_in_order(worker):
    """A hundred requests in one write: small, large, missing, HEAD, with bodies, over two reads of the server."""
    wanted = []
    data = b""
    for i in range(100):
        target, status = (("/small.txt", 200), ("/medium.bin", 200), (f"/none{i}", 404), ("/whoami", 200))[i % 4]
        method = "HEAD" if i % 5 == 0 else "GET"
        body = b"GET /evil HTTP/1.1\r\n" if i % 7 == 0 else b""
        pad = "x" * 300
        data += f"{method} {target} HTTP/1.1\r\nHost: a\r\nX: {pad}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        wanted.append((method, status, target))
    with contextlib.closing(worker.connect()) as client:
        client.send(data)
        for method, status, target in wanted:
            answer = client.answer(head=method == "HEAD")
            assert (answer.status, answer.closes) == (status, False)
            if target == "/medium.bin":
                assert answer.headers["content-length"] == "100000"
        assert client.request("/").status == 200 and client.buffer == b""


def test_request_in_single_bytes(worker):
    """A head may come in any pieces; chunked bodies too."""
    head = b"GET /small.txt HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n"
    with contextlib.closing(worker.connect()) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(head)):
            client.send(head[i : i + 1])
        assert client.answer().status == 200
        assert client.request("/").status == 200 and client.buffer == b""


def test_unix_socket(worker):
    """Every listener is served, those without TCP options too."""
    with contextlib.closing(worker.connect(unix=True)) as client:
        assert client.request("/small.txt").status == 200
        assert client.request("/medium.bin").status == 200
        client.send(b"nonsense\n")
        assert client.answer().status == 400 and client.at_end()


def test_small_answers_are_not_delayed(worker):
    """TCP_NODELAY is on, seen on the worker's own descriptor: Nagle would hold back the tail of every large answer."""
    worker.wait_until(lambda: worker.connections == 0)
    with contextlib.closing(worker.connect()) as client:
        assert client.request("/small.txt").status == 200
        sockets = [n for n in worker.fds() if os.readlink(f"/proc/{worker.pid}/fd/{n}").startswith("socket:")]
        fd = ctypes.CDLL(None).syscall(438, worker.pidfd, int(sockets[-1]), 0)  # pidfd_getfd
        if fd < 0:
            pytest.skip("pidfd_getfd is not permitted here")
        with socket.socket(fileno=fd) as accepted:
            assert accepted.getpeername() == client.sock.getsockname()
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_half_closed_client_gets_its_answers(worker):
    """A client that shuts down its side after the request still waits for the answer."""
    with contextlib.closing(worker.connect()) as client:
        client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert (len(client.answer().body), len(client.answer().body)) == (BIG, 1024)
        assert client.at_end()


def test_big_file_to_a_slow_reader(site, worker):
    """Every byte arrives, however small the client's window, and others are served meanwhile."""
    with contextlib.closing(worker.connect(rcvbuf=8192)) as client:
        client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        client.fill()
        assert worker.get("/small.txt").status == 200
        assert client.answer().body == (site / "big.bin").read_bytes()


def test_file_that_shrinks_is_not_made_up(site, worker):
    """The announced length cannot be kept: the connection ends early, with nothing wrong sent."""
    path = site / "shrinking.bin"
    path.write_bytes(b"z" * BIG)
    with contextlib.closing(worker.connect(rcvbuf=8192)) as client:
        client.send(b"GET /shrinking.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        client.fill()
        os.truncate(path, 0)
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
    assert worker.get("/small.txt").status == 200


def test_client_that_resets(worker):
    """A reset in the middle of an answer costs the worker nothing but the connection."""
    worker.wait_until(lambda: worker.connections == 0)
    before = worker.fds()
    for _ in range(20):
        client = worker.connect(rcvbuf=8192)
        client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        client.fill()
        client.reset()
    worker.wait_until(lambda: worker.connections == 0)
    assert worker.fds() == before
    assert worker.get("/small.txt").status == 200


# Refusals

HOST = b"Host: a\r\n"


@pytest.mark.parametrize(
    "data, status",
    [
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n", 400),
        (b"\x16\x03\x01\x02", 400),
        (b"\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /#a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://u@a/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 65537\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (b"GET /" + b"x" * 16384, 414),
        (b"GET /" + b"x" * 8192 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Expect: a miracle\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 16384, 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"B" * 33 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", 501),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
def test_malformed_request_is_refused(worker, data, status):
    """The answer is readable, says that the connection ends, and the end is no reset."""
    assert worker.raw(data).status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE", "PATCH"])
def test_other_methods_are_not_allowed(worker, method):
    """405 with Allow; the body is skipped and the connection goes on."""
    with contextlib.closing(worker.connect()) as client:
        answer = client.request("/", method=method, headers=["Content-Length: 65536"], body=b"x" * 65536)
        assert (answer.status, answer.headers["allow"], answer.closes) == (405, "GET, HEAD, OPTIONS", False)
        chunks = b"1000\r\n" + b"y" * 4096 + b"\r\n0\r\n\r\n"
        assert client.request("/", method=method, headers=["Transfer-Encoding: chunked"], body=chunks).status == 405
        assert client.request("/small.txt").status == 200 and client.buffer == b""


@pytest.mark.parametrize("body", [b"x\r\n", b"fffff\r\n", b"1\r\nab"])
def test_bad_body_ends_the_connection(worker, body):
    """An answer that needs no body comes at once; what follows a body that is malformed or too large is no request."""
    with contextlib.closing(worker.connect()) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().status == 405 and client.at_end()


@pytest.mark.parametrize("method", ["BREW", "get", "PROPFIND"])
def test_unknown_methods_are_not_implemented(worker, method):
    """501, but the request as such is understood: its body is skipped and the connection goes on."""
    with contextlib.closing(worker.connect()) as client:
        answer = client.request("/", method=method, headers=["Content-Length: 4"], body=b"body")
        assert (answer.status, answer.closes) == (501, False)
        assert client.request("/small.txt").status == 200 and client.buffer == b""


@pytest.mark.parametrize("field", [b"", b"Connection: close\r\n"])
def test_refusal_reaches_a_client_that_keeps_sending(worker, field):
    """The answer to a body that is too large must not be destroyed by a reset while the client still writes."""
    with contextlib.closing(worker.connect()) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + field + b"Content-Length: 300000\r\n\r\n")
        assert select.select([client.sock], [], [], 60)[0]
        for _ in range(3):
            client.send(b"x" * 100000)
        assert client.answer().status == 405 and client.at_end()


def test_expect_continue_gets_the_final_answer(worker):
    """RFC 9110, section 10.1.1: no 100 is needed before a final answer, which says that the connection ends."""
    with contextlib.closing(worker.connect()) as client:
        answer = client.request("/", method="PUT", headers=["Content-Length: 10", "Expect: 100-continue"])
        assert answer.status == 405 and answer.closes and client.at_end()


def test_head_limit_is_configurable(site):
    """--max-request-head is a limit on both sides: a head of that size passes, a byte more does not."""
    with started(site, "--max-request-head=2K") as w:
        base = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
        fit = base.replace(b"X: ", b"X: " + b"x" * (2048 - len(base)))
        with contextlib.closing(w.connect()) as client:
            client.send(fit)
            assert client.answer().status == 200
        assert w.raw(fit.replace(b"X: ", b"X: x")).status == 431


# Time-outs


def test_request_timeout(site):
    """408 for a head that does not get complete in time; drips do not stretch it."""
    with started(site, "--request-timeout=200ms") as w:
        assert w.raw(b"GET / HT").status == 408
        with contextlib.closing(w.connect()) as client:
            begin = time.monotonic()
            while not select.select([client.sock], [], [], 0.02)[0]:
                client.send(b"x")
            assert client.answer().status == 408 and time.monotonic() - begin < DEADLINE


def test_idle_timeout(site):
    """A connection without a request is closed without a word, whether it has had one before or not."""
    with started(site, "--idle-timeout=200ms") as w:
        with w.stopped():
            fresh, used = w.connect(), w.connect()
            used.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.closing(fresh), contextlib.closing(used):
            assert used.answer().status == 200
            assert fresh.at_end() and used.at_end()
        w.wait_until(lambda: w.connections == 0)


def test_send_timeout(site):
    """A client that does not read loses its connection; one that reads slowly but steadily does not."""
    with started(site, "--send-timeout=4s") as w:
        stuck, slow = w.connect(rcvbuf=8192), w.connect(rcvbuf=65536)
        for client in (stuck, slow):
            client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        w.wait_until(lambda: w.connections == 2)
        while w.connections == 2:
            select.select([], [], [], 0.005)
            slow.buffer += slow.sock.recv(5000)
        assert len(slow.answer().body) == BIG
        with pytest.raises((EOFError, ConnectionResetError)):
            stuck.answer()


def test_send_timeout_counts_what_is_read(site):
    """The kernel's buffer may be full for longer than the time-out while the client empties it: that is progress."""
    with started(site, "--send-timeout=3s") as w:
        client = w.connect()
        client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        client.fill()
        for _ in range(80):
            select.select([], [], [], 0.1)
            client.buffer += client.sock.recv(15000)
        assert w.connections == 1
        assert len(client.answer().body) == BIG
        client.close()


# The master's side


def test_whoami(worker):
    """Who answers, as JSON, never cached; the count includes the answer itself."""
    with contextlib.closing(worker.connect()) as client:
        first = client.request("/whoami")
        second = json.loads(client.request("/whoami?x").body)
    before = json.loads(first.body)
    assert first.headers["cache-control"] == "no-store"
    assert before == {"app": "default", "slot": 3, "pid": worker.serving, "generation": 5, "requests": before["requests"]}
    assert second["requests"] == before["requests"] + 1 == worker.cell()[3]
    assert worker.get("/whoami/").status == 404


def test_whoami_is_off_by_default(resolver):
    """An app of the user's own has no address of ours."""
    assert resolver.get("/whoami").status == 404


def test_counters_on_the_board(site):
    """Connections, accepts and requests are right on every way out."""
    with started(site, "--request-timeout=100ms", "--idle-timeout=3s") as w:
        clients = [w.connect() for _ in range(5)]
        for client in clients:
            assert client.request("/").status == 200
        assert w.cell() == (READY, 5, 5, 5)
        clients[0].close()
        clients[1].reset()
        clients[2].send(b"GARBAGE\n")
        clients[3].send(b"GET")
        assert clients[2].answer().status == 400 and clients[3].answer().status == 408
        assert clients[4].at_end()
        for client in clients[2:]:
            client.close()
        w.wait_until(lambda: w.connections == 0)
        assert w.cell() == (READY, 0, 5, 7)


def test_descriptors_do_not_leak(site):
    """A thousand connections of every kind of end leave the descriptors as they were."""
    with started(site, "--file-cache=0") as w:
        assert w.get("/").status == 200
        w.wait_until(lambda: w.connections == 0)
        before = w.fds()
        for i in range(1000):
            client = w.connect()
            client.send((b"GET /medium.bin HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /fo", b"junk\n", b"")[i % 4])
            if i % 8 == 0:
                client.answer()
            client.reset() if i % 3 else client.close()
        w.wait_until(lambda: w.connections == 0 and w.cell()[2] == 1001)
        assert w.fds() == before


def test_only_what_is_needed_is_open(worker):
    """Standard streams, listeners, board, bell, folder, epoll, signals; of the keeper two bells, signals, its children, two of
    which are processes, and its OOM score if it may be changed. Nothing else came along or was opened."""
    worker.wait_twin().wait_until(lambda: worker.connections == 0)
    assert len(worker.fds()) - (3 + len(worker.listeners) + 5) in (6, 7)


@pytest.mark.skipif(b"__asan_init" in BINARY.read_bytes(), reason="a sanitizer needs memory of its own")
def test_memory_with_idle_connections(site):
    """A hundred idle connections: at most 400 KiB of private memory, because idle ones own no buffer."""
    with started(site) as w:
        clients = [w.connect() for _ in range(100)]
        for client in clients:
            assert client.request("/medium.bin").status == 200
        assert w.connections == 100
        assert w.smaps("Private_Dirty") < 400
        for client in clients:
            client.close()


def test_idle_worker_does_not_wake_up(site):
    """With nothing to wait for there is no time-out: no switch of context in half a second."""
    with started(site, channel=True) as w:
        assert w.get("/").status == 200
        w.wait_until(lambda: w.connections == 0)
        client = w.connect()
        assert client.request("/").status == 200
        w.wait_asleep()
        before = w.switches(), w.beats()
        select.select([w.pidfd], [], [], 0.5)
        assert (w.switches(), w.beats()) == before


def test_max_connections(site):
    """Past the limit connections wait in the kernel; each close lets one in, with no busy loop meanwhile."""
    with started(site, "--max-connections=3") as w:
        clients = [w.connect() for _ in range(6)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in clients[:3]:
            assert client.answer().status == 200
        before = w.cpu_ticks()
        assert not select.select([c.sock for c in clients[3:]], [], [], 0.5)[0]
        assert w.cell()[1:3] == (3, 3)
        assert w.cpu_ticks() - before < 10
        for leaving, waiting in zip(clients[:3], clients[3:]):
            leaving.close()
            assert waiting.answer().status == 200


def test_limit_of_descriptors(site):
    """The soft limit is raised to what the connections need; a low hard limit leaves room for files, not for errors."""
    with started(site, "--max-connections=2000", wrapper=wrapper("nofile", 500, 5000)) as w:
        assert resource.prlimit(w.pid, resource.RLIMIT_NOFILE)[0] >= 4000
    with started(site, wrapper=wrapper("nofile", 40, 40)) as w:
        clients = [w.connect() for _ in range(20)]
        for client in clients:
            client.send(b"GET /medium.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in clients:
            assert client.answer().status == 200
            client.close()
        w.wait_until(lambda: w.cell()[1:3] == (0, 20))


def test_lack_of_descriptors(site):
    """EMFILE: no busy loop and no lost connection; whoever waits is served when another leaves."""
    with started(site) as w:
        resource.prlimit(w.pid, resource.RLIMIT_NOFILE, (len(w.fds()) + 3, 100))
        clients = [w.connect() for _ in range(20)]
        for client in clients:
            client.send(b"GET /zero.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        answered = set()
        while len(answered) < 20:
            ready, _, _ = select.select([c.sock for c in clients if c not in answered], [], [], 10)
            assert ready
            for client in [c for c in clients if c.sock in ready]:
                assert client.answer().status in (200, 503)  # no descriptor may be left for the file
                answered.add(client)
                client.sock.shutdown(socket.SHUT_RDWR)


def test_lack_that_is_not_ours(site):
    """When nothing of ours could be closed to end the lack, it is looked after once a second."""
    with started(site) as w:
        n = len(w.wait_twin().fds())
        resource.prlimit(w.serving, resource.RLIMIT_NOFILE, (n, 100))
        with contextlib.closing(w.connect()) as client:
            client.send(b"GET /zero.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            before = w.cpu_ticks()
            assert not select.select([client.sock], [], [], 0.5)[0]
            assert w.cpu_ticks() - before < 10
            resource.prlimit(w.serving, resource.RLIMIT_NOFILE, (100, 100))
            assert client.answer().status == 200


def test_siblings_share_the_connections(site):
    """Of connections that stay open, one after the other, each of two workers gets its part (the kernel alone: all to one)."""
    with started(site) as w, w.sibling() as other:
        other.wait_state(READY)

        def is_shared():
            """One that does not get to run for a while gets nothing then."""
            clients = []
            for _ in range(400):
                clients.append(w.connect())
                assert clients[-1].request("/zero.bin").status == 200
            parts = w.connections, other.connections
            for client in clients:
                client.close()
            assert sum(parts) == 400
            w.wait_until(lambda: w.connections + other.connections == 0)
            return min(parts) >= 40

        w.wait_until(is_shared)


def test_descriptors_close_on_exec(worker):
    """Whatever a later kind of worker executes, it gets none of these."""
    worker.wait_until(lambda: worker.connections == 0)
    with contextlib.closing(worker.connect()) as client:
        assert client.request("/").status == 200
        for fd in worker.fds()[3:]:
            flags = open(f"/proc/{worker.pid}/fdinfo/{fd}").read().split("flags:")[1].split()[0]
            assert int(flags, 8) & os.O_CLOEXEC, os.readlink(f"/proc/{worker.pid}/fd/{fd}")


def test_one_connection_wakes_one_worker(worker):
    """Listeners are watched with EPOLLEXCLUSIVE."""
    worker.wait_until(lambda: worker.connections == 0)
    for fd in worker.fds():
        if os.readlink(f"/proc/{worker.pid}/fd/{fd}") == "anon_inode:[eventpoll]":
            watched = open(f"/proc/{worker.pid}/fdinfo/{fd}").read().splitlines()
    watched = {int(line.split()[1]): int(line.split()[3], 16) for line in watched if line.startswith("tfd:")}
    assert watched[3] & 1 << 28 and watched[4] & 1 << 28


# Drain


def test_drain_without_connections(site):
    """SIGTERM to an idle worker: it says so on the board and exits 0."""
    with started(site) as w:
        w.kill()
        assert (w.wait_exit(), w.state) == (0, DRAINING)


def test_drain_finishes_what_is_open(site):
    """A download goes on to its last byte; a keep-alive connection gets one more answer, which closes it."""
    with started(site) as w:
        download, used, partial = w.connect(rcvbuf=8192), w.connect(), w.connect()
        download.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        download.fill()
        assert used.request("/").status == 200
        partial.send(b"GET /small.txt HT")
        w.wait_until(lambda: w.connections == 3)
        with w.stopped():  # an idle connection has a second for one more request
            w.retire_stopped()
            used.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        w.wait_state(DRAINING)

        answer = used.answer()
        assert answer.status == 200 and answer.closes and used.at_end()
        partial.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        answer = partial.answer()
        assert answer.status == 200 and answer.closes and partial.at_end()
        assert download.answer().body == (site / "big.bin").read_bytes()
        download.close()
        used.close()
        partial.close()
        assert (w.wait_exit(), w.connections) == (0, 0)


def test_drain_under_load(site):
    """The order to drain is heard however busy the worker is: it is an event among the others."""
    with started(site) as w:
        data = b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n" * 500
        busy = threading.Event()

        def load():
            with contextlib.closing(w.connect()) as client, contextlib.suppress(OSError):
                client.sock.setblocking(False)
                poll = select.poll()
                poll.register(client.sock, select.POLLIN | select.POLLOUT)
                while ready := poll.poll(DEADLINE * 1000):
                    for _, events in ready:
                        if events & select.POLLIN:
                            if not client.sock.recv(1 << 20):
                                return
                            busy.set()
                        elif events & select.POLLOUT:
                            client.sock.send(data)
                        else:
                            return

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert busy.wait(DEADLINE)
        w.wait_until(lambda: w.connections == 4)
        w.kill()
        w.wait_state(DRAINING)
        for thread in threads:
            thread.join()
        assert w.wait_exit() == 0


def test_drain_closes_idle_connections(site):
    """Who sends nothing within a second is closed quietly, and the worker exits."""
    with started(site) as w:
        used, fresh = w.connect(), w.connect()
        assert used.request("/").status == 200
        w.wait_until(lambda: w.connections == 2)
        begin = time.monotonic()
        w.kill()
        assert used.at_end() and fresh.at_end()
        assert w.wait_exit() == 0 and 0.9 < time.monotonic() - begin


def test_drain_leaves_the_queue_to_siblings(site):
    """A worker that drains accepts nothing more: the connection is there for whoever shares the socket."""
    with started(site) as w:
        holder = w.connect()
        assert holder.request("/").status == 200
        w.kill()
        w.wait_state(DRAINING)
        late = w.connect()
        late.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert w.wait_exit() == 0 and w.cell()[2] == 1
        sibling, _ = w.listeners[0].accept()
        assert sibling.recv(100).startswith(b"GET / ")
        holder.close()
        late.close()
        sibling.close()


def test_drain_takes_what_woke_it_up(site):
    """A connection wakes up one worker of those that sleep. When that one finds the order to drain at the same time it takes
    the connection along: nobody else has heard of it."""
    with started(site) as w:
        w.wait_asleep()
        w.stop()
        waiting = [w.connect() for _ in range(20)]
        for client in waiting:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        w.retire_stopped()
        w.kill(signal.SIGCONT)
        for client in waiting:
            answer = client.answer()
            assert answer.status == 200 and answer.headers["connection"] == "close"
            client.close()
        assert w.wait_exit() == 0 and w.cell()[2] == 20


def test_orphan_leaves_the_queue(site):
    """A worker that finds connections and the end of its master when it wakes up leaves the connections: whoever ends it (systemd
    kills the workers of a killed master) would end them too. The kernel wakes the stopped workers of a dead master."""
    worker_harness.prctl(worker_harness.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with started(site, "--whoami", "--no-twin", wrapper=wrapper("master")) as w:
        pid = json.loads(w.get("/whoami").body)["pid"]
        accepted = w.cell()[2]
        w.wait_asleep(pid)  # in the middle of a turn it would go on with that
        os.kill(pid, signal.SIGSTOP)
        w.wait_until(lambda: pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
        waiting = [w.connect() for _ in range(20)]
        w.kill(signal.SIGKILL)
        w.wait_exit()  # now the worker is ours
        os.kill(pid, signal.SIGCONT)  # as the kernel does for a group of its own
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0 and w.cell()[2] == accepted
        for client in waiting:
            sibling, _ = w.listeners[0].accept()
            sibling.close()
            client.close()


def test_orphan_drains_for_a_limited_time(site):
    """When the master is gone nobody kills what does not end, so the worker ends itself after 5 s."""
    worker_harness.prctl(worker_harness.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with started(site, "--whoami", "--no-twin", wrapper=wrapper("master")) as w:
        pid = json.loads(w.get("/whoami").body)["pid"]
        assert pid != w.pid
        client = w.connect(rcvbuf=8192)
        client.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        client.fill()
        pidfd = os.pidfd_open(pid)
        begin = time.monotonic()
        w.kill(signal.SIGKILL)
        assert select.select([pidfd], [], [], 15)[0], "it is still there"
        assert 4 < time.monotonic() - begin
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0 and w.connections == 0
        os.close(pidfd)
        client.close()


def test_orphaned_keeper(site):
    """It is the parent that the master's end is told to: whoever serves drains, nobody takes over, and it ends with that one."""
    worker_harness.prctl(worker_harness.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with started(site, wrapper=wrapper("master")) as w:
        w.wait_twin()
        keeper = int(w._field(w.serving, "PPid"))
        assert keeper != w.pid
        with contextlib.closing(w.connect()) as client:
            assert client.request("/zero.bin").status == 200
            w.kill(signal.SIGKILL)
            w.wait_until(lambda: w.state == DRAINING)
            answer = client.request("/zero.bin")
            assert answer.status == 200 and answer.closes
        _, status = os.waitpid(keeper, 0)
        assert os.waitstatus_to_exitcode(status) == 0 and w.connections == 0 and w.takeovers() == 0


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGHUP, signal.SIGPIPE])
def test_other_signals_are_the_masters(site, signo):
    """^C reaches every process of a terminal; only the master acts on it."""
    with started(site) as w:
        w.kill(signo)
        assert w.get("/").status == 200


# Starting


def test_missing_directory(tmp_path):
    """Exit 1, with the reason where the master finds it."""
    with Worker(tmp_path / "nothing") as w:
        assert w.wait_exit() == 1
        assert w.reason() == f"Failed to open the directory {tmp_path}/nothing: No such file or directory"


@pytest.mark.parametrize(
    "name, value",
    [
        ("MUSTER_APP", None),
        ("MUSTER_APP", 'a"b'),
        ("MUSTER_WORKER", None),
        ("MUSTER_WORKER", "0"),
        ("MUSTER_GENERATION", "-1"),
        ("LISTEN_FDS", None),
        ("LISTEN_FDS", "x"),
        ("MUSTER_BOARD_FD", None),
        ("MUSTER_BOARD_CELL", "1024"),
        ("MUSTER_CHANNEL_FD", ""),
        ("MUSTER_CHANNEL_FD", "x"),
        ("MUSTER_CHANNEL_FD", "-1"),
        ("MUSTER_CHANNEL_FD", "0"),  # /dev/null
        ("MUSTER_CHANNEL_FD", "99"),  # not open
    ],
)
def test_environment_of_the_master_is_needed(site, name, value, capfd):
    """Started by hand, or by something else than musterd: exit 2, with the variable named."""
    with Worker(site, environment={name: value}) as w:
        assert w.wait_exit() == 2
        assert name in capfd.readouterr().err


@pytest.mark.parametrize(
    "option, message",
    [
        ("--idle-timeout=60", "a time span"),
        ("--idle-timeout=0", "a time span"),
        ("--request-timeout=2d", "a time span"),
        ("--send-timeout=", "a time span"),
        ("--max-request-head=1", "a size"),
        ("--max-request-head=2M", "a size"),
        ("--max-connections=0", "a number"),
        ("--max-requests=-1", "a number"),
        ("--nonsense", "unknown option"),
        ("--directory", "a value is missing"),
        ("extra", "not an option"),
    ],
)
def test_options_are_strict(option, message):
    """A wrong value is named with what was expected; exit 2."""
    run = subprocess.run([BINARY, "--directory=/", option], capture_output=True, text=True, check=False)
    assert run.returncode == 2 and message in run.stderr and option.split("=")[0] in run.stderr


def test_help_and_version():
    """They need no master, and go to stdout."""
    for option, text in (("--help", "for the next 16 KiB of an answer"), ("--version", "muster-worker ")):
        run = subprocess.run([BINARY, option], capture_output=True, text=True, check=True)
        assert text in run.stdout and run.stderr == ""


def test_listener_must_listen(site):
    """A descriptor that is no listening socket is refused at the start, by number."""
    with Worker(site, environment={"LISTEN_FDS": "2"}) as w:
        assert w.wait_exit() == 1


def test_last_listener_breaks(site):
    """A worker that can never accept again ends with an error, instead of looking ready for ever."""
    with started(site) as w:
        w.listeners[0].shutdown(socket.SHUT_RDWR)
        assert w.wait_exit() == 1
        assert "LISTEN_FDS" in w.reason()
