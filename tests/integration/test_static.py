# SPDX-License-Identifier: MIT
"""Static files as clients see them: ranges, conditions, codings, listings, and files that change under the worker's hands."""

import contextlib
import email.parser
import email.policy
import gzip
import html.parser
import json
import os
import random
import re
import resource
import shutil
import subprocess
import time
import urllib.parse

import pytest
from worker_harness import BINARY, DEADLINE, READY, Worker, wrapper

BIG = 20 * 1024 * 1024
HUGE = 5 * 1024**3
TEXT = b"0123456789abcdefghijklmnopqrstuvwxyz"
SETTLED = 2  # seconds: a file that was changed later than that is compared at each use

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    top = tmp_path_factory.mktemp("static")
    (top / "secret.txt").write_bytes(b"nobody may see this")
    root = top / "root"
    root.mkdir()
    (root / "index.html").write_text("<title>root</title>\n")
    (root / "text.txt").write_bytes(TEXT)
    (root / "empty.txt").write_bytes(b"")
    (root / "large.bin").write_bytes(random.Random(1).randbytes(100_000))
    (root / "edge.bin").write_bytes(random.Random(2).randbytes(16384))
    (root / "over.bin").write_bytes(random.Random(3).randbytes(16385))
    (root / "big.bin").write_bytes(random.Random(4).randbytes(BIG))
    script = b"console.log(1);\n" * 500
    (root / "app.js").write_bytes(script)
    (root / "app.js.gz").write_bytes(gzip.compress(script))
    (root / "app.js.br").write_bytes(b"as if it were brotli")
    (root / "app.js.zst").write_bytes(b"as if it were zstd")
    (root / "only.css").write_bytes(b"a{}" * 100)
    (root / "only.css.gz").write_bytes(gzip.compress(b"a{}" * 100))
    (root / "lone.js.gz").write_bytes(gzip.compress(b"x"))
    (root / "odd.css").write_bytes(b"b{}")
    (root / "odd.css.br").symlink_to(top / "secret.txt")
    (root / "odd.css.zst").mkdir()
    os.mkfifo(root / "odd.css.gz")
    with open(root / "huge.bin", "wb") as f:
        f.truncate(HUGE)
        f.seek(HUGE - 10)
        f.write(b"the end...")
    (root / ".well-known").mkdir()
    (root / ".well-known" / "security.txt").write_text("Contact: mailto:a@example\n")
    (root / "inside.txt").symlink_to("text.txt")
    (root / "outside.txt").symlink_to(top / "secret.txt")
    (root / "model.stl").write_text("solid\n")
    return root


@contextlib.contextmanager
def started(*args, **kwargs):
    with Worker(*args, **kwargs) as w:
        yield w.wait_state(READY)


@pytest.fixture(scope="module", params=["cached", "uncached"])
def worker(request, site):
    with started(site, *([] if request.param == "cached" else ["--file-cache=0"])) as w:
        yield w


def settle(w, *paths):
    """Until the worker takes the files for ones that are not being worked on."""
    last = max(max(os.stat(p).st_ctime, os.stat(p).st_mtime) for p in paths)
    w.wait_until(lambda: time.time() >= last + SETTLED + 0.1)


def ask(client, target, *fields, **kwargs):
    return client.request(target, headers=fields, **kwargs)


def parts_of(answer):
    """The pieces of a multipart answer: (Content-Range, Content-Type, bytes), read by the standard library."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.body)
    assert message.is_multipart() and not message.defects
    boundary = message.get_boundary().encode()
    assert answer.body.endswith(b"\r\n--" + boundary + b"--\r\n")
    for raw in (b"\r\n" + answer.body).split(b"\r\n--" + boundary)[1:-1]:
        fields, content = raw[2:].split(b"\r\n\r\n", 1)
        fields = dict(line.split(": ", 1) for line in fields.decode().split("\r\n"))
        yield fields["Content-Range"], fields["Content-Type"], content


# Ranges: RFC 9110, section 14


@pytest.mark.parametrize(
    "field, first, last",
    [
        ("0-0", 0, 0),
        ("2-5", 2, 5),
        ("5-", 5, 35),
        ("-1", 35, 35),
        ("-36", 0, 35),
        ("-99999999999999999999", 0, 35),
        ("30-99999999999999999999", 30, 35),
        ("0-1,1-4", 0, 4),
        ("4-5,2-3", 2, 5),
        ("1-2,99-", 1, 2),
        (", 1-2 ,", 1, 2),
    ],
)
def test_one_range(worker, field, first, last):
    """One part comes as it is, with its place in the whole and the whole's fields."""
    whole = worker.get("/text.txt")
    answer = worker.get("/text.txt", headers=[f"Range: bytes={field}"])
    assert (answer.status, answer.body) == (206, TEXT[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(TEXT)}"
    for name in ("etag", "last-modified", "content-type", "accept-ranges"):
        assert answer.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    "field", ["bytes=a", "bytes=5-2", "bytes=", "bytes=1", "lines=1-2", "bytes=1-2,x", "bytes 1-2", "bytes=0-,1-2", "bytes=0-17,18-35"]
)
def test_range_that_is_ignored(worker, field):
    """What is malformed, in another unit, or comes to the whole gets the whole."""
    answer = worker.get("/text.txt", headers=[f"Range: {field}"])
    assert (answer.status, answer.body) == (200, TEXT)


@pytest.mark.parametrize("target, size, field", [("/text.txt", 36, "36-"), ("/text.txt", 36, "-0"), ("/empty.txt", 0, "0-"), ("/large.bin", 100_000, "100000-,999999-")])
def test_range_that_is_not_there(worker, target, size, field):
    """416 tells the size, so that the client can do better; the connection goes on."""
    with contextlib.closing(worker.connect()) as client:
        answer = ask(client, target, f"Range: bytes={field}")
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{size}")
        assert not answer.closes and client.request("/text.txt").status == 200


def test_range_is_for_get_alone(worker):
    """Section 14.2: HEAD with a range is answered as without; so is what has two of the field."""
    head = worker.get("/text.txt", method="HEAD", headers=["Range: bytes=0-0"])
    assert (head.status, head.headers["content-length"]) == (200, "36")
    assert worker.get("/text.txt", headers=["Range: bytes=0-0", "Range: bytes=1-1"]).status == 200
    assert worker.get("/nothing", headers=["Range: bytes=0-0"]).status == 404


@pytest.mark.parametrize("target", ["/text.txt", "/large.bin"])
def test_many_ranges(site, worker, target):
    """Section 14.6: parts with their places, in the order of the request; each answer has a boundary of its own."""
    data = (site / target[1:]).read_bytes()
    size = len(data)
    answers = [worker.get(target, headers=["Range: bytes=30-32,0-0, 7-9,-2"]) for _ in range(2)]
    for answer in answers:
        assert answer.status == 206 and "content-range" not in answer.headers
        assert answer.headers["content-type"].startswith("multipart/byteranges; boundary=")
        wanted = [(30, 32), (0, 0), (7, 9), (size - 2, size - 1)]
        parts = list(parts_of(answer))
        assert [p[0] for p in parts] == [f"bytes {a}-{b}/{size}" for a, b in wanted]
        assert [p[2] for p in parts] == [data[a : b + 1] for a, b in wanted]
        assert {p[1] for p in parts} == {worker.get(target).headers["content-type"]}
    assert answers[0].headers["content-type"] != answers[1].headers["content-type"]


def test_large_parts_to_a_slow_reader(site, worker):
    """Parts of megabytes go out whole, however small the window, and the next request follows directly."""
    data = (site / "big.bin").read_bytes()
    with contextlib.closing(worker.connect(rcvbuf=8192)) as client:
        answer = ask(client, "/big.bin", "Range: bytes=100-3000100,5000000-8000000,-1000")
        assert [p[2] for p in parts_of(answer)] == [data[100:3000101], data[5000000:8000001], data[-1000:]]
        assert client.request("/text.txt").body == TEXT and client.buffer == b""


def test_ranges_of_an_attacker(site, worker):
    """Section 17.15: no set of ranges makes an answer much larger than the file, or more than 64 parts."""
    many = ",".join(f"{3 * i}-{3 * i}" for i in range(65))
    assert worker.get("/large.bin", headers=[f"Range: bytes={many}"]).status == 200
    most = ",".join(f"{3 * i}-{3 * i}" for i in range(64))
    answer = worker.get("/large.bin", headers=[f"Range: bytes={most}"])
    assert answer.status == 206 and len(list(parts_of(answer))) == 64
    answer = worker.get("/edge.bin", headers=[f"Range: bytes={most}"])
    assert answer.status == 206 and len(list(parts_of(answer))) == 64
    overlapping = "0-," + ",".join(f"5-{i}" for i in range(5, 1300))
    answer = worker.get("/large.bin", headers=[f"Range: bytes={overlapping}"])
    assert (answer.status, len(answer.body)) == (200, 100_000)
    few = ",".join(f"{i}-{99_000 + i}" for i in range(60))
    answer = worker.get("/large.bin", headers=[f"Range: bytes={few}"])
    assert (answer.status, answer.headers["content-range"]) == (206, "bytes 0-99059/100000")


def test_end_of_a_huge_file(worker):
    """Offsets beyond 4 GiB; the holes before cost nothing."""
    answer = worker.get("/huge.bin", headers=["Range: bytes=-10"])
    assert (answer.status, answer.body) == (206, b"the end...")
    assert answer.headers["content-range"] == f"bytes {HUGE - 10}-{HUGE - 1}/{HUGE}"
    answer = worker.get("/huge.bin", headers=[f"Range: bytes={2**32}-{2**32},{HUGE - 3}-"])
    assert [p[2] for p in parts_of(answer)] == [b"\0", b"..."]
    assert worker.get("/huge.bin", method="HEAD").headers["content-length"] == str(HUGE)


def model(field, size):
    """What a reader of RFC 9110 expects of well-formed ranges: (first, last) by place, joined where they touch."""
    parts = []
    for spec in field.split(","):
        first, last = spec.split("-")
        a = int(first) if first else max(size - int(last), 0)
        b = min(int(last), size - 1) if first and last else size - 1
        if a <= b:
            parts.append((a, b))
    joined = []
    for a, b in sorted(parts):
        if joined and a <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(b, joined[-1][1]))
        else:
            joined.append((a, b))
    return joined


def test_random_ranges(site, worker):
    """Thousands of random sets give the very bytes that they name, on one connection."""
    rng = random.Random(7)
    with contextlib.closing(worker.connect()) as client:
        for _ in range(1500):
            target = rng.choice(["/text.txt", "/edge.bin", "/over.bin"])
            data = (site / target[1:]).read_bytes()
            size = len(data)
            specs = []
            for _ in range(rng.choice([1, 1, 2, 3, 8])):
                a, b = sorted(rng.randrange(size + size // 8) for _ in range(2))
                b = rng.choice([b, min(b, a + 5)])
                specs.append(rng.choice([f"{a}-{b}", f"{a}-{b}", f"{a}-", f"-{rng.randrange(size)}"]))
            field = ",".join(specs)
            answer = ask(client, target, f"Range: bytes={field}")
            parts = model(field, size)
            if not parts:
                assert answer.status == 416, field
            elif parts == [(0, size - 1)] and len(specs) > 1:
                assert (answer.status, answer.body) == (200, data), field
            elif len(parts) == 1:
                a, b = parts[0]
                assert (answer.status, answer.headers["content-range"]) == (206, f"bytes {a}-{b}/{size}"), field
                assert answer.body == data[a : b + 1], field
            else:
                got = list(parts_of(answer))
                assert sorted(p[0] for p in got) == sorted(f"bytes {a}-{b}/{size}" for a, b in parts), field
                for place, _, content in got:
                    a, b = map(int, re.match(r"bytes (\d+)-(\d+)/", place).groups())
                    assert content == data[a : b + 1], field


# Conditions: RFC 9110, section 13


def test_preconditions(worker):
    """412 before 304 before ranges; each with what the client needs to go on."""
    with contextlib.closing(worker.connect()) as client:
        whole = client.request("/text.txt")
        etag, modified = whole.headers["etag"], whole.headers["last-modified"]
        epoch = "Thu, 01 Jan 1970 00:00:00 GMT"
        rows = [
            ([f"If-Match: {etag}"], 200),
            (["If-Match: *"], 200),
            ([f"If-Match: W/{etag}"], 412),
            (['If-Match: "x"'], 412),
            ([f"If-Unmodified-Since: {modified}"], 200),
            ([f"If-Unmodified-Since: {epoch}"], 412),
            ([f"If-Match: {etag}", f"If-Unmodified-Since: {epoch}"], 200),
            (['If-Match: "x"', f"If-None-Match: {etag}"], 412),
            ([f"If-None-Match: {etag}", "Range: bytes=0-0"], 304),
            (['If-None-Match: "x"', "Range: bytes=0-0"], 206),
            (['If-Match: "x"', "Range: bytes=0-0"], 412),
            ([f"If-Match: {etag}", "Range: bytes=99-"], 416),
        ]
        for fields, status in rows:
            answer = ask(client, "/text.txt", *fields)
            assert (answer.status, answer.closes) == (status, False), fields
            if status == 304:
                assert (answer.headers["etag"], answer.headers["last-modified"]) == (etag, modified)
                assert not {"content-type", "content-length", "accept-ranges", "content-encoding"} & set(answer.headers)
        assert ask(client, "/text.txt", 'If-Match: "x"', method="HEAD").status == 412


def test_if_range(site, worker):
    """Section 13.1.5: a download that is taken up again gets its rest, or all of what is there now."""
    path = site / "resumed.bin"
    path.write_bytes(b"x" * 50_000)
    os.utime(path, (1e9, 1e9))
    with contextlib.closing(worker.connect()) as client:
        whole = client.request("/resumed.bin")
        etag, modified = whole.headers["etag"], whole.headers["last-modified"]
        assert modified == "Sun, 09 Sep 2001 01:46:40 GMT"
        for validator, status in ((etag, 206), (modified, 206), (f"W/{etag}", 200), ('"x"', 200), ("Sun, 09 Sep 2001 01:46:41 GMT", 200), ("*", 200)):
            assert ask(client, "/resumed.bin", "Range: bytes=100-", f"If-Range: {validator}").status == status, validator
        path.write_bytes(b"y" * 50_000)
        worker.wait_until(lambda: client.request("/resumed.bin").headers["etag"] != etag)
        answer = ask(client, "/resumed.bin", "Range: bytes=100-", f"If-Range: {etag}")
        assert (answer.status, answer.body) == (200, b"y" * 50_000)


# Codings: RFC 9110, section 12.5.3


@pytest.mark.parametrize(
    "accepted, coding",
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, zstd", "zstd"),
        ("gzip", "gzip"),
        ("gzip;q=1, br;q=0.5", "gzip"),
        ("*", "br"),
        ("*, br;q=0", "zstd"),
        ("identity", None),
        ("deflate", None),
        ("", None),
        ("br;q=0, gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
    ],
)
def test_coding(site, worker, accepted, coding):
    """What lies beside the file is sent under the file's name and type, with a tag of its own."""
    answer = worker.get("/app.js", headers=[f"Accept-Encoding: {accepted}"])
    suffix = {"br": ".br", "zstd": ".zst", "gzip": ".gz", None: ""}[coding]
    assert (answer.status, answer.body) == (200, (site / f"app.js{suffix}").read_bytes())
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["vary"] == "Accept-Encoding"


def test_codings_are_representations(worker):
    """Each has its own tag and ranges; a client that has one of them is told so, with Vary."""
    with contextlib.closing(worker.connect()) as client:
        tags = {}
        for coding in ("br", "zstd", "gzip", "identity"):
            whole = ask(client, "/app.js", f"Accept-Encoding: {coding}")
            tags[coding] = whole.headers["etag"]
            part = ask(client, "/app.js", f"Accept-Encoding: {coding}", "Range: bytes=3-7")
            assert (part.status, part.body) == (206, whole.body[3:8])
            same = ask(client, "/app.js", f"Accept-Encoding: {coding}", f"If-None-Match: {tags[coding]}")
            assert (same.status, same.headers["vary"], same.headers["etag"]) == (304, "Accept-Encoding", tags[coding])
        assert len(set(tags.values())) == 4
        other = ask(client, "/app.js", "Accept-Encoding: gzip", f"If-None-Match: {tags['br']}")
        assert other.status == 200


def test_no_coding(worker):
    """Where nothing lies beside a file there is no Vary; what is no regular file beneath the folder is not there."""
    for target in ("/text.txt", "/odd.css"):
        answer = worker.get(target, headers=["Accept-Encoding: gzip, br, zstd"])
        assert answer.status == 200 and not {"vary", "content-encoding"} & set(answer.headers)
    assert worker.get("/lone.js", headers=["Accept-Encoding: gzip"]).status == 404
    assert worker.get("/lone.js.gz").headers["content-type"] == "application/gzip"


def test_every_coding_is_refused(worker):
    """406 for a client that takes not even the file as it is."""
    for target in ("/app.js", "/text.txt"):
        assert worker.get(target, headers=["Accept-Encoding: *;q=0"]).status == 406
    assert worker.get("/app.js", headers=["Accept-Encoding: identity;q=0, gzip"]).status == 200


def test_without_codings(site):
    """Switched off, what lies beside a file is another file."""
    with started(site, "--no-precompressed") as w:
        answer = w.get("/app.js", headers=["Accept-Encoding: gzip"])
        assert answer.status == 200 and not {"vary", "content-encoding"} & set(answer.headers)


def test_curl(site, worker, tmp_path):
    """A client that people use: decodes, takes up a download, asks for parts."""
    curl = shutil.which("curl")
    if not curl:
        pytest.skip("curl is not there")
    url = "http://%s:%d" % worker.address

    def run(*args):
        return subprocess.run([curl, "-sS", "--fail", "--max-time", str(DEADLINE), *args], check=True, stdout=subprocess.PIPE).stdout

    assert run("-H", "Accept-Encoding: gzip", "--compressed", f"{url}/only.css") == b"a{}" * 100
    assert run("-r", "-4", f"{url}/text.txt") == TEXT[-4:]
    target = tmp_path / "part"
    data = (site / "big.bin").read_bytes()
    target.write_bytes(data[: BIG // 3])
    run("-C", "-", "-o", str(target), f"{url}/big.bin")
    assert target.read_bytes() == data


# Files that change


def test_replaced_file_is_seen(site):
    """A file that took another's place is served after its time in the cache at the latest; so is one that is gone, or new."""
    path = site / "replaced.txt"
    path.write_bytes(b"old")
    with started(site, "--file-cache-valid=300ms") as w, contextlib.closing(w.connect()) as client:
        assert client.request("/not-yet.txt").status == 404
        settle(w, path)
        assert client.request("/replaced.txt").body == b"old"
        (site / "other.txt").write_bytes(b"new")
        os.rename(site / "other.txt", path)
        start = time.monotonic()
        w.wait_until(lambda: client.request("/replaced.txt").body == b"new")
        assert time.monotonic() - start < 5  # far more than it takes, far less than for ever
        path.unlink()
        w.wait_until(lambda: client.request("/replaced.txt").status == 404)
        (site / "not-yet.txt").write_bytes(b"now")
        assert client.request("/not-yet.txt").status == 200


def test_cached_file_stays_what_it_was(site):
    """While it is taken as it is, content and tag of a small file belong together, whatever happens to the file."""
    path = site / "steady.txt"
    path.write_bytes(b"first")
    with started(site, "--file-cache-valid=1h") as w, contextlib.closing(w.connect()) as client:
        settle(w, path)
        before = client.request("/steady.txt")
        path.write_bytes(b"second")
        after = client.request("/steady.txt")
        assert (after.body, after.headers["etag"]) == (b"first", before.headers["etag"])


def test_large_file_changed_in_place_is_seen_at_once(site):
    """The content of a large file comes from the file: its tag and length must not be those of before."""
    path = site / "inplace.bin"
    path.write_bytes(b"a" * 50_000)
    with started(site, "--file-cache-valid=1h") as w, contextlib.closing(w.connect()) as client:
        settle(w, path)
        before = client.request("/inplace.bin")
        for data in (b"b" * 60_000, b"c" * 20_000, b"d" * 100):
            path.write_bytes(data)
            after = client.request("/inplace.bin")
            assert after.body == data and after.headers["etag"] != before.headers["etag"]


def test_file_that_shrinks_while_it_is_sent(site):
    """Nothing is made up for what is missing: the connection ends, of every client that was being sent it."""
    path = site / "shrinks.bin"
    path.write_bytes(b"z" * BIG)
    with started(site) as w:
        settle(w, path)
        clients = [w.connect(rcvbuf=8192) for _ in range(3)]
        for i, client in enumerate(clients):
            field = ["", "Range: bytes=1-\r\n", "Range: bytes=0-10,100-\r\n"][i]
            client.send(b"GET /shrinks.bin HTTP/1.1\r\nHost: a\r\n" + field.encode() + b"\r\n")
            client.fill()
        os.truncate(path, 1000)
        for client in clients:
            with contextlib.closing(client), pytest.raises((EOFError, ConnectionResetError)):
                client.answer()
        assert len(w.get("/shrinks.bin").body) == 1000


def test_file_that_leaves_the_cache_while_it_is_sent(site):
    """Who is being sent a file gets it whole, though it has been evicted, replaced and deleted meanwhile; then it is closed."""
    path = site / "leaves.bin"
    data = os.urandom(BIG)
    path.write_bytes(data)
    with started(site, "--file-cache=2", "--file-cache-valid=1ms") as w, contextlib.closing(w.connect(rcvbuf=8192)) as client:
        client.send(b"GET /leaves.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        client.fill()
        path.unlink()
        path.write_bytes(b"another")
        for target in ("/text.txt", "/large.bin", "/over.bin", "/edge.bin", "/app.js"):
            assert w.get(target).status == 200
        assert w.get("/leaves.bin").body == b"another"
        assert client.answer().body == data
        w.wait_until(lambda: not any("leaves.bin" in os.readlink(f"/proc/{w.pid}/fd/{n}") for n in w.fds()))


def test_cache_is_bounded(tmp_path):
    """However many files there are, so many are open and no more."""
    for i in range(200):
        (tmp_path / f"{i}.bin").write_bytes(b"x" * 20_000)
    with started(tmp_path, "--file-cache=50", "--file-cache-valid=1h") as w, contextlib.closing(w.connect()) as client:
        before = len(w.wait_twin().fds())
        for i in range(200):
            assert client.request(f"/{i}.bin").status == 200
        assert len(w.fds()) <= before + 50 + 1


@pytest.mark.parametrize("limits", [(80, 80), (80, 4096), (300, 300)])
def test_cache_leaves_descriptors_to_clients(tmp_path, limits):
    """Files that are kept open take nothing from clients who come after that, nor from files that are not."""
    for i in range(400):
        (tmp_path / f"{i}.bin").write_bytes(b"x" * 20_000)
    with started(tmp_path, "--file-cache-valid=1h", "--max-connections=20", wrapper=wrapper("nofile", *limits)) as w:
        with contextlib.closing(w.connect()) as client:
            for i in range(400):
                assert client.request(f"/{i}.bin").status == 200
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(contextlib.closing(w.connect())) for _ in range(15)]
            for i, client in enumerate(clients):
                assert client.request(f"/{i}.bin").status == 200


def test_cache_has_descriptors_of_its_own(tmp_path):
    """The soft limit is raised for clients and files together: as far as the hard one goes, none takes the other's."""
    for i in range(400):
        (tmp_path / f"{i}.bin").write_bytes(b"x" * 20_000)
    options = ("--file-cache=400", "--file-cache-valid=1h", "--max-connections=200")
    with started(tmp_path, *options, wrapper=wrapper("nofile", 64, 4096)) as w, contextlib.ExitStack() as stack:
        with contextlib.closing(w.connect()) as client:
            for i in range(400):
                assert client.request(f"/{i}.bin").status == 200
        for _ in range(200):
            stack.enter_context(contextlib.closing(w.connect()))
        w.wait_until(lambda: w.connections == 200)
        assert len(w.fds()) >= 600


def test_cache_gives_way_to_clients(tmp_path):
    """Files that are kept open give way to clients who come after that, as many as there may be, with the files that they get."""
    for i in range(600):
        (tmp_path / f"{i}.bin").write_bytes(b"x" * 20_000)
    options = ("--file-cache=400", "--file-cache-valid=1h", "--max-connections=200")
    with started(tmp_path, *options, wrapper=wrapper("nofile", 64, 4096)) as w:
        with contextlib.closing(w.connect()) as client:
            for i in range(400):
                assert client.request(f"/{i}.bin").status == 200
        resource.prlimit(w.pid, resource.RLIMIT_NOFILE, (464, 4096))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(contextlib.closing(w.connect())) for _ in range(200)]
            w.wait_until(lambda: w.connections == 200)
            for i, client in enumerate(clients):
                assert client.request(f"/{400 + i}.bin").status == 200


def test_idle_worker_sleeps_on(site):
    """What the cache holds wakes nobody."""
    with started(site, "--file-cache-valid=10ms") as w, contextlib.closing(w.connect()) as client:
        for target in ("/text.txt", "/large.bin", "/app.js"):
            assert client.request(target).status == 200
        w.wait_asleep()
        before = w.switches()
        client.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.sock.recv(1)
        assert w.switches()[0] == before[0]


def test_pipelined_hits(site):
    """A hundred answers from memory in one go, of which some need another variant."""
    with started(site) as w, contextlib.closing(w.connect()) as client:
        settle(w, site / "text.txt")
        for _ in range(2):
            client.send(b"GET /text.txt HTTP/1.1\r\nHost: a\r\n\r\nGET /app.js HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\n\r\n" * 50)
            for _ in range(50):
                assert client.answer().body == TEXT
                assert client.answer().headers["content-encoding"] == "br"


# Folders, links, methods


class Links(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.names, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.inside = tag == "a"
        if tag == "a":
            self.links.append(dict(attrs)["href"])
            self.names.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.names[-1] += data


def test_listing(site, tmp_path):
    """What is listed is what can be had, by links that work whatever the name; without an index, and only if it is wanted."""
    names = ["a b", "<script>alert(1)<", "x&y", "q?r#s", "100%", "ünï", "javascript:alert(1)", 'quo"te\'', "back\\slash", "\udcff\udcfe", "new\nline"]
    for name in names:
        (tmp_path / name).write_text(name, errors="surrogateescape")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("a b")
    (tmp_path / "bad link").symlink_to("/etc/passwd")
    (tmp_path / ".hidden").write_text("h")
    os.mkfifo(tmp_path / "fifo")
    with started(tmp_path, "--listing") as w, contextlib.closing(w.connect()) as client:
        page = client.request("/")
        assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
        links = Links(page.body.decode())
        assert links.links[0] == "folder/" and len(links.links) == len(names) + 2
        found = {urllib.parse.unquote(link, errors="surrogateescape") for link in links.links}
        assert found == {*names, "folder/", "link"}
        for link in links.links[1:]:
            assert client.request("/" + link).status == 200, link
        assert client.request("/.hidden").status == 200
        inner = client.request("/folder/")
        assert Links(inner.body.decode()).links == ["../"]
        assert client.request("/folder").headers["location"] == "/folder/"
        head = client.request("/", method="HEAD")
        assert head.headers["content-length"] == page.headers["content-length"]
    with started(tmp_path) as w:
        assert w.get("/").status == 403
    with started(site, "--listing") as w:
        assert w.get("/").body == b"<title>root</title>\n"


def test_large_listing(tmp_path):
    """Ten thousand entries make a page, more than that no larger one; the connection goes on."""
    for i in range(10_050):
        (tmp_path / f"{i:06}").touch()
    with started(tmp_path, "--listing") as w, contextlib.closing(w.connect()) as client:
        page = client.request("/")
        links = Links(page.body.decode()).links
        assert len(links) == 10_000 and links == sorted(links)
        assert b"There are more" in page.body
        assert client.request("/000001").status == 200


def test_links_by_policy(site):
    """Beneath the folder by default; with "none" not even those."""
    for options, statuses in (([], (200, 404)), (["--symlinks=none"], (404, 404)), (["--symlinks=beneath"], (200, 404))):
        with started(site, *options) as w:
            assert (w.get("/inside.txt").status, w.get("/outside.txt").status) == statuses


def test_options_of_a_site(site, tmp_path):
    """Another index, Cache-Control with all that may be kept, and not with what may not."""
    (tmp_path / "home.htm").write_text("home")
    (tmp_path / "index.html").write_text("index")
    with started(tmp_path, "--index=home.htm", "--cache-control=public, max-age=60") as w:
        answer = w.get("/")
        assert (answer.body, answer.headers["cache-control"]) == (b"home", "public, max-age=60")
        same = w.get("/", headers=[f"If-None-Match: {answer.headers['etag']}"])
        assert (same.status, same.headers["cache-control"]) == (304, "public, max-age=60")
        assert w.get("/", headers=["Range: bytes=0-0"]).headers["cache-control"] == "public, max-age=60"
        for answer in (w.get("/nothing"), w.get("/", headers=["Range: bytes=9-"]), w.get("/", headers=['If-Match: "x"'])):
            assert "cache-control" not in answer.headers


def test_hidden_files(worker):
    """They are served, as by other servers: /.well-known/ is made of them."""
    assert worker.get("/.well-known/security.txt").status == 200


def test_types(worker):
    """From the built-in table, and from the system's where there is one."""
    assert worker.get("/text.txt").headers["content-type"] == "text/plain; charset=utf-8"
    assert worker.get("/large.bin").headers["content-type"] == "application/octet-stream"
    if os.path.exists("/etc/mime.types") and re.search(r"^model/stl\s.*\bstl\b", open("/etc/mime.types").read(), re.M):
        assert worker.get("/model.stl").headers["content-type"] == "model/stl"


def test_options_method(worker):
    """OPTIONS tells what can be done, of a file and of the server, and has no body."""
    with contextlib.closing(worker.connect()) as client:
        for target in ("/text.txt", "*", "/nothing"):
            client.send(f"OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            answer = client.answer(head=True)
            assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert client.request("/text.txt").body == TEXT and client.buffer == b""
        assert client.request("/text.txt", method="BREW").status == 501


def test_whoami_is_no_file(site):
    """The worker's own answer has no place in the cache, and no file of that name before it."""
    (site / "whoami").write_text("a file")
    with started(site, "--whoami") as w, contextlib.closing(w.connect()) as client:
        assert [json.loads(client.request(t).body)["requests"] for t in ("/whoami", "/whoami", "/%77hoami")] == [1, 2, 3]
