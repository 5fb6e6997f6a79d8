# SPDX-License-Identifier: MIT
"""Native workers behind a proxy that says whose a connection is (workers.proxy_protocol): both forms of the header."""

import contextlib
import json
import shutil
import socket
import struct
import subprocess
import time

import pytest
from worker_harness import BINARY, DEADLINE, READY, Worker

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET /whoami HTTP/1.1\r\nHost: x\r\n\r\n"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n"


def v2(address, extra=b"", command=0x21):
    family, pack = (0x21, socket.AF_INET6) if ":" in address else (0x11, socket.AF_INET)
    packed = socket.inet_pton(pack, address)
    body = packed + packed + struct.pack("!HH", 40000, 443) + extra
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


V2 = v2("192.0.2.1")


class Behind:
    """A worker that expects the header, and its log, which shows the addresses."""

    def __init__(self, folder, *options, **kwargs):
        self.log = folder / "log"
        self.worker = Worker(
            folder, "--whoami", "--proxy-protocol", f"--access-log={self.log}", "--access-log-format=json", *options, **kwargs
        )

    def connect(self, unix=False):
        client = self.worker.connect(unix=unix)
        if not unix:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def peers(self):
        """Of all that was answered; the worker ends by that."""
        self.worker.kill()
        assert self.worker.wait_exit() == 0
        return [json.loads(line)["peer"] for line in self.log.read_text().splitlines()]


@pytest.fixture
def behind(tmp_path):
    with contextlib.ExitStack() as stack:

        def start(*options, **kwargs):
            b = Behind(tmp_path, *options, **kwargs)
            stack.enter_context(b.worker).wait_state(READY)
            return b

        yield start


ADDRESSES = [
    (V1, "192.0.2.1"),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", "2001:db8::1"),
    (b"PROXY TCP6 ::ffff:192.0.2.9 :: 1 65535\r\n", "192.0.2.9"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "127.0.0.1"),
    (V2, "192.0.2.1"),
    (v2("2001:db8::1"), "2001:db8::1"),
    (v2("192.0.2.1", extra=b"\x04\x00\x0a" + bytes(10)), "192.0.2.1"),
    (v2("192.0.2.1", extra=bytes(65535 - 12)), "192.0.2.1"),
    (SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), "unix:"),
    (SIGNATURE + b"\x21\x00\x00\x00", "127.0.0.1"),
    (LOCAL, "127.0.0.1"),
    (v2("192.0.2.1", command=0x20), "127.0.0.1"),
]


def test_addresses(behind):
    """What the header says is whose the request is; where it says nothing, the socket does."""
    b = behind()
    for header, _ in ADDRESSES:
        with contextlib.closing(b.connect()) as c:
            c.send(header + GET)
            assert c.answer().status == 200
            assert c.request("/whoami").status == 200  # the header is the connection's, not the request's
    assert b.peers() == [address for _, address in ADDRESSES for _ in range(2)]


@pytest.mark.parametrize("header", [V1, V2, v2("192.0.2.1", extra=bytes(300)), LOCAL], ids=["v1", "v2", "extra", "local"])
def test_in_pieces(behind, header):
    """Byte by byte, also where header and request meet; and cut in two at every place."""
    b = behind()
    with contextlib.closing(b.connect()) as c:
        for i in range(len(header + GET)):
            c.send((header + GET)[i : i + 1])
        assert c.answer().status == 200
    for cut in range(1, len(header), max(1, len(header) // 40)):
        with contextlib.closing(b.connect()) as c:
            c.send(header[:cut])
            b.worker.wait_asleep()
            c.send(header[cut:] + GET)
            assert c.answer().status == 200
    assert len(set(b.peers())) == 1


def test_by_unix_socket(behind, tmp_path):
    """The proxy on the same machine: its clients still have their addresses."""
    b = behind(unix_path=tmp_path / "socket")
    for header in (V1, V2, LOCAL):
        with contextlib.closing(b.connect(unix=True)) as c:
            c.send(header + GET)
            assert c.answer().status == 200
    assert b.peers() == ["192.0.2.1", "192.0.2.1", "unix:"]


@pytest.mark.parametrize("data", [
    GET,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 0443\r\n" + GET,
    b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\n" + GET,
    b"PROXY TCP4 192.0.2.1\r\n" + GET,
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n" + GET,
    b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12) + GET,
    SIGNATURE + b"\x21\x11\x00\x04" + bytes(4) + GET,
    SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12) + GET,
    b"\r\n" + GET,
], ids=["none", "tls", "port", "lf", "short line", "long line", "put", "version 3", "short", "command 2", "empty line"])  # fmt: skip
def test_no_header(behind, data):
    """Who does not begin with one could claim to be anybody: closed without a word; the next one is served."""
    b = behind()
    with contextlib.closing(b.connect()) as c:
        c.send(data)
        with contextlib.suppress(ConnectionResetError):
            assert c.sock.recv(100) == b""
    with contextlib.closing(b.connect()) as c:
        c.send(V1 + GET)
        assert c.answer().status == 200
    assert b.peers() == ["192.0.2.1"]


def test_two_headers(behind):
    """The second is no request, and answered as such."""
    b = behind()
    with contextlib.closing(b.connect()) as c:
        c.send(V1 + V1 + GET)
        assert c.answer().status == 400
    assert b.peers() == ["192.0.2.1"]


@pytest.mark.parametrize("data", [b"", b"P", V1[:-1], V2[:15], V2[:-1], v2("192.0.2.1", extra=bytes(300))[:-1]])
def test_too_slow(behind, data):
    """A header has the time of a request, and no answer when that is over."""
    b = behind("--request-timeout=50ms")
    with contextlib.closing(b.connect()) as c:
        begin = time.monotonic()
        if data:
            c.send(data)
        assert c.at_end()
        assert time.monotonic() - begin > 0.04
    assert b.peers() == []


def test_header_without_request(behind):
    """The header alone, then nothing: an idle connection like any other, or one whose client has left."""
    b = behind("--idle-timeout=50ms")
    with contextlib.closing(b.connect()) as c:
        c.send(V1)
        assert c.at_end()
    with contextlib.closing(b.connect()) as c:
        c.send(V1)
        c.reset()
    b.worker.wait_until(lambda: b.worker.connections == 0)
    assert b.peers() == []


def test_not_asked_for(tmp_path):
    """Without the option a header is no request."""
    with Worker(tmp_path, "--whoami") as w:
        w.wait_state(READY)
        for header in (V1, V2):
            with contextlib.closing(w.connect()) as c:
                c.send(header + GET)
                assert c.answer().status == 400


def test_curl(behind):
    """curl says where it is itself, in version 1."""
    if not shutil.which("curl"):
        pytest.skip("no curl")
    b = behind()
    url = "http://{}:{}/whoami".format(*b.worker.address)
    r = subprocess.run(["curl", "-sf", "--haproxy-protocol", url, url], capture_output=True, timeout=DEADLINE, check=True)
    assert r.stdout.count(b'"app":"default"') == 2
    assert subprocess.run(["curl", "-s", url], capture_output=True, timeout=DEADLINE, check=False).returncode in (52, 56)
    assert b.peers() == ["127.0.0.1"] * 2


def test_under_the_master(start):
    """The key of the configuration is all that it takes; who forgets it in the proxy is told, and not in a flood."""
    m = start('workers: { count = 1; proxy_protocol = true; soak = "20ms"; };')
    m.wait_ready()
    for _ in range(5):
        with contextlib.closing(m.connect()) as c:
            c.send(GET)
            with contextlib.suppress(ConnectionResetError):
                assert c.sock.recv(100) == b""
    with contextlib.closing(m.connect()) as c:
        c.send(V1 + GET)
        assert c.answer().status == 200
    said = "Closed a connection without a header of the PROXY protocol (workers.proxy_protocol): byte 1: found 0x47, expected 0x0d"
    assert m.stderr().count(said) == 1
