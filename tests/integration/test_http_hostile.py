# SPDX-License-Identifier: MIT
"""Clients that mean no good, or know no better: each gets what it is due, costs little, and takes nothing from the others."""

import contextlib
import fcntl
import os
import pathlib
import resource
import select
import socket
import struct
import termios
import time

import pytest
from worker_harness import BINARY, BUILD_DIR, DEADLINE, READY, Worker

SITE_MODULE = BUILD_DIR / "tests/integration/modules/site.so"
PAGE_MODULE = BUILD_DIR / "packaging/examples/page.so"
BIG = 8 * 1024 * 1024
SANITIZED = BINARY.exists() and b"__asan_init" in BINARY.read_bytes()
IDLE = 10000

pytestmark = pytest.mark.skipif(not SITE_MODULE.exists(), reason=f"{SITE_MODULE} is not built")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    (root / "index.html").write_text("hello\n")
    (root / "small.txt").write_bytes(b"s" * 1024)
    (root / "big.bin").write_bytes(os.urandom(BIG))
    return root


@contextlib.contextmanager
def started(*args, **kwargs):
    with Worker(*args, **kwargs) as w:
        yield w.wait_state(READY)


@pytest.fixture(scope="module")
def module(site, tmp_path_factory):
    with started(site, f"--module={SITE_MODULE}", unix_path=tmp_path_factory.mktemp("run") / "sock") as w:
        with contextlib.closing(w.connect()) as client:  # its event loop is made when it is wanted, and stays
            client.send(head("/events"))
            assert client.sock.recv(1)
        yield w


def head(target, *fields, method="GET"):
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


def is_readable(client):
    return bool(select.select([client.sock], [], [], 0)[0])


def sent(client):
    """Bytes that were given to the socket of a unix connection and are not read: 0 when the server has taken all."""
    return struct.unpack("i", fcntl.ioctl(client.sock, termios.TIOCOUTQ, b"\0" * 4))[0] == 0


def data_segments(client):
    """How many segments with data have come in: tcpi_data_segs_in of struct tcp_info."""
    return struct.unpack_from("=I", client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 152)[0]


def at_end(client):
    """Whether the other side has closed or reset."""
    try:
        return not client.sock.recv(65536)
    except ConnectionResetError:
        return True


# Slow ones


def test_slowloris(site):
    """Heads that drip from many connections: all are told off in time, however lively they are, and others are served meanwhile."""
    with started(site, "--request-timeout=500ms") as w:
        drips = [w.connect() for _ in range(200)]
        for client in drips:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        served, left, refused = 0, list(drips), 0
        end = time.monotonic() + DEADLINE
        while left:
            assert time.monotonic() < end
            for client in list(left):
                if is_readable(client):
                    assert client.answer().status == 408
                    left.remove(client)
                    client.close()
                    refused += 1
                else:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        client.send(b"X: y\r\n")
            if left:
                assert w.get("/").status == 200
                served += 1
        assert refused == 200 and served > 0
        w.wait_until(lambda: w.connections == 0)


def test_slow_body(site):
    """A body must make progress, by 16 KiB in a time-out; a drip is none. The module is told, and the client gets 408."""
    with started(site, f"--module={SITE_MODULE}", "--body-timeout=500ms") as w:
        with contextlib.closing(w.connect()) as client:
            client.send(head("/sum", "Content-Length: 100000", method="POST"))
            end = time.monotonic() + DEADLINE
            while not is_readable(client):
                assert time.monotonic() < end, "a drip keeps the connection"
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(b"x")
                select.select([client.sock], [], [], 0.02)
            answer = client.answer()
            assert answer.status == 408 and answer.closes and client.at_end()
        w.wait_until(lambda: w.connections == 0)


def test_slow_but_steady_body(site):
    """Who sends 16 KiB in each time-out may take as long as it likes in all."""
    with started(site, f"--module={SITE_MODULE}", "--body-timeout=3s") as w:
        with contextlib.closing(w.connect()) as client:
            client.send(head("/sum", f"Content-Length: {10 * 20000}", method="POST"))
            for _ in range(10):
                select.select([client.sock], [], [], 0.4)
                client.send(b"\1" * 20000)
            assert client.answer().body == b"200000 200000\n"


def test_stream_that_nobody_reads(tmp_path):
    """The time-out of sending ends a streamed answer too, and the program whose output it was."""
    environment = {"PAGE_COMMAND": "echo $$ >pid; exec yes", "MUSTER_WORKER": "3"}
    with started(tmp_path, f"--module={PAGE_MODULE}", "--send-timeout=500ms", environment=environment) as w:
        with contextlib.closing(w.connect(rcvbuf=8192)) as client:
            client.send(head("/"))
            w.wait_until(lambda: w.connections == 1 and (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
            pid = (tmp_path / "pid").read_text().strip()
            w.wait_until(lambda: w.connections == 0)
            w.wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists())


def test_client_that_never_reads(module):
    """Requests are not read while answers wait: what a client can send without reading is bounded, and so is our memory."""
    before = module.smaps("Private_Dirty")
    with contextlib.closing(module.connect(rcvbuf=8192)) as client:
        client.sock.setblocking(False)
        requests, n = head("/big.bin") + head("/number") * 1000, 0
        end = time.monotonic() + DEADLINE
        while select.select([], [client.sock], [], 0.3)[1]:
            assert n < 64 * 1024 * 1024 and time.monotonic() < end
            with contextlib.suppress(BlockingIOError):
                n += client.sock.send(requests)
        assert module.get("/number").status == 200
        if not SANITIZED:
            assert module.smaps("Private_Dirty") - before < 1024
        client.sock.settimeout(DEADLINE)
        assert len(client.answer().body) == BIG  # and it may still change its mind
        numbers = [int(client.answer().body) for _ in range(1000)]
        assert numbers == sorted(set(numbers))


def test_refusal_reaches_a_client_that_sends_much(module):
    """A body that is too large by far: the answer is still there when the client has sent all of it and looks."""
    for _ in range(5):
        with contextlib.closing(module.connect()) as client:
            client.send(head("/sum", f"Content-Length: {BIG}", method="POST"))
            for _ in range(BIG // 65536):
                client.send(b"x" * 65536)
            assert client.answer().status == 413 and client.at_end()


# Many


@pytest.fixture
def descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + IDLE // 2:
        pytest.skip(f"{IDLE} connections need more descriptors than the hard limit {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 200), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def get_from_all(site_worker, n):
    """Opens so many connections and has an answer on each; they are kept."""
    held = []
    while len(held) < n:
        batch = [site_worker.connect() for _ in range(500)]
        held += batch
        for client in batch:
            client.send(head("/small.txt"))
        for client in batch:
            assert client.answer().status == 200
    return held


def test_idle_connections(site, descriptors):
    """Ten thousand that have had an answer and wait, with two workers: at most 1 KiB of memory for each, a new one is served at once,
    and when the workers are to go all are closed, without a reset."""
    with started(site, f"--max-connections={IDLE * 2 // 3}") as w, w.sibling() as other:
        workers = w, other.wait_state(READY)
        before = sum(x.smaps("Pss") for x in workers)
        held = get_from_all(w, IDLE)
        assert sum(x.connections for x in workers) == IDLE
        if not SANITIZED:
            assert sum(x.smaps("Pss") for x in workers) - before <= IDLE  # KiB
        assert w.get("/small.txt").status == 200
        for x in workers:
            x.kill()
        for client in held:
            assert client.at_end()
            client.close()
        assert [(x.wait_exit(), x.connections) for x in workers] == [(0, 0), (0, 0)]


def test_flood(site):
    """Ten times as many clients as may be there at a time: all are served in the end, and at no time more than that are let in."""
    with started(site, "--max-connections=50") as w:
        clients, most = [w.connect() for _ in range(500)], 0
        for client in clients:
            client.send(head("/small.txt", "Connection: close"))
        for client in clients:
            assert client.answer().status == 200 and client.at_end()
            most = max(most, w.connections)
            client.close()
        w.wait_until(lambda: w.connections == 0)
        assert most <= 50 and w.cell()[2] == 500


def test_flood_of_resets(site):
    """Connections that are reset before they are accepted, or just after, leave nothing behind."""
    with started(site, "--file-cache=0") as w:
        assert w.get("/").status == 200
        w.wait_until(lambda: w.connections == 0)
        before = w.fds()
        for i in range(1000):
            client = w.connect()
            if i % 2:
                client.send(head("/big.bin"))
            client.reset()
        assert w.get("/").status == 200
        w.wait_until(lambda: w.connections == 0)
        assert w.fds() == before


# Abrupt ones

MOMENTS = {
    "in a head": b"GET / HT",
    "after a head": head("/number"),
    "in a body": head("/sum", "Content-Length: 1000", method="POST") + b"x" * 10,
    "in a chunk": head("/sum", "Transfer-Encoding: chunked", method="POST") + b"ff\r\nxx",
    "in an echo": head("/echo", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n",
    "in a file": head("/big.bin"),
    "in a stream": head("/endless"),
    "in events": head("/events"),
    "while it is held": head("/hold"),
    "while others wait": head("/hold") + head("/number") * 10,
    "after a refusal": b"nonsense\r\n\r\n",
}


def leave(client, way):
    if way == "reset":
        client.reset()
    elif way == "close":
        client.close()
    else:
        with contextlib.suppress(OSError):
            client.sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", ["close", "reset", "half-close"])
def test_client_that_leaves(module, moment, way):
    """At whatever moment and however a client leaves, its connection is gone with all that belonged to it."""
    module.wait_until(lambda: module.connections == 0)
    before = module.fds()
    accepted = module.cell()[2]
    n = 5
    clients = [module.connect(rcvbuf=8192) for _ in range(n)]
    for client in clients:
        client.send(MOMENTS[moment])
    module.wait_until(lambda: module.cell()[2] == accepted + n)
    for i, client in enumerate(clients):
        if i % 2:
            select.select([client.sock], [], [], 0.02)  # what is there of an answer stays unread
        leave(client, way)
    if b"/hold" in MOMENTS[moment] and way != "reset":  # they may still wait for the answer: that shows it
        assert module.get("/report", method="POST", headers=["Content-Length: 1"], body=b"x").status == 200
    for client in clients:
        client.close()
    module.wait_until(lambda: module.connections == 0)
    module.wait_until(lambda: len(module.fds()) <= len(before))
    assert module.get("/number").status == 200


def test_half_close_within_a_request(module):
    """The rest cannot come: there is nothing to be answered, and the end is seen at once."""
    for data in (MOMENTS["in a head"], MOMENTS["in a body"], MOMENTS["in a chunk"]):
        with contextlib.closing(module.connect()) as client:
            client.send(data)
            client.sock.shutdown(socket.SHUT_WR)
            assert at_end(client)


def test_half_close_before_the_answer(module):
    """A client may have said all it has to say, and still wait."""
    with contextlib.closing(module.connect()) as client:
        client.send(head("/sum", "Content-Length: 3", method="POST") + b"\1\2\3" + head("/number"))
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer().body == b"3 6\n"
        assert client.answer().status == 200
        assert client.at_end()


# Dense ones, and split ones


def test_thousand_requests_at_once(module):
    """A thousand in one segment: answered in their order, in few writes."""
    with contextlib.closing(module.connect()) as client:
        with module.stopped():
            client.send(head("/number") * 1000)
        numbers = [int(client.answer().body) for _ in range(1000)]
        assert numbers == list(range(numbers[0], numbers[0] + 1000))
        assert client.buffer == b"" and data_segments(client) <= 40


def test_thousand_requests_with_bodies(module):
    """Likewise where each has a body that has to be collected, of either kind."""
    length = head("/sum", "Content-Length: 2", method="POST") + b"\1\2"
    chunked = head("/sum", "Transfer-Encoding: chunked", method="POST") + b"1\r\n\4\r\n0002;x\r\n\5\6\r\n0\r\nT: u\r\n\r\n"
    with contextlib.closing(module.connect()) as client:
        client.send((length + chunked) * 500)
        for _ in range(500):
            assert (client.answer().body, client.answer().body) == (b"2 3\n", b"3 15\n")


def test_request_split_at_every_byte(module):
    """Wherever a request is cut, the worker, which has read the first part before the second is sent, understands the same."""
    data = head("/sum", "Transfer-Encoding: chunked", method="POST") + b"3;a=\"b\"\r\n\1\2\3\r\nA\r\n0123456789\r\n0\r\nT: v\r\nU: w\r\n\r\n"
    with contextlib.closing(module.connect(unix=True)) as client:
        for i in range(1, len(data)):
            client.send(data[:i])
            module.wait_until(lambda: sent(client))
            client.send(data[i:])
            answer = client.answer()
            assert (answer.status, answer.body) == (200, b"13 531\n"), i
        assert client.buffer == b""


def test_request_that_is_cut_short_at_every_byte(module):
    """Wherever it ends, nothing of it is answered."""
    data = head("/sum", "Content-Length: 5", method="POST") + b"12345"
    requests = module.get("/number")
    for i in range(1, len(data)):
        with contextlib.closing(module.connect(unix=True)) as client:
            client.send(data[:i])
            client.sock.shutdown(socket.SHUT_WR)
            assert at_end(client), i
    assert module.get("/number").status == requests.status
