# SPDX-License-Identifier: MIT
"""Bodies that a module takes: collected, streamed, in chunks, too large, and never complete."""

import socket

from module_harness import connected, deeds, send_request

CHUNKED = "Transfer-Encoding: chunked"


def chunks(*pieces, trailers=""):
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (*pieces, b""))[:-2] + trailers.encode() + b"\r\n"


def test_collected():
    with deeds() as w, connected(w) as client:
        for n in (0, 1, 5000, 100000):
            body = b"b" * n
            a = client.request("/echo", method="POST", headers=(f"Content-Length: {n}",), body=body)
            assert (a.status, a.body) == (200, body)
        assert client.request("/").body == b"hello\n"
        assert w.text("/closes") == "4 0 0"


def test_in_chunks_with_trailers():
    with deeds() as w, connected(w) as client:
        body = chunks(b"one ", b"two", trailers="X-Sum: 7\r\n")
        a = client.request("/echo", method="POST", headers=(CHUNKED,), body=body)
        assert (a.body, a.headers["x-sum"]) == (b"one two", "7")
        send_request(client, "/echo", method="POST", headers=(CHUNKED,))
        for byte in chunks(b"b" * 300, b"c"):
            client.send(bytes([byte]))
        assert client.answer().body == b"b" * 300 + b"c"
        assert client.request("/").body == b"hello\n"


def test_client_that_waits_for_the_word():
    with deeds() as w, connected(w) as client:
        send_request(client, "/echo", method="POST", headers=("Content-Length: 3", "Expect: 100-continue"))
        while b"\r\n\r\n" not in client.buffer:
            assert client.fill()
        assert client.buffer == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.buffer = b""
        client.send(b"abc")
        assert client.answer().body == b"abc"


def test_too_large():
    """By its length, or when it has come so far: 413, by the worker, if the module says nothing."""
    with deeds() as w:
        for headers, body in ((("Content-Length: 100001",), b""), ((CHUNKED,), chunks(b"b" * 60000, b"b" * 60000))):
            with connected(w) as client:
                a = client.request("/echo", method="POST", headers=headers, body=body)
                assert a.status == 413 and a.closes
        assert w.text("/last") == "-90"
        assert w.text("/closes") == "0 0 2"


def test_malformed_chunks():
    with deeds() as w:
        with connected(w) as client:
            assert client.request("/echo", method="POST", headers=(CHUNKED,), body=b"nonsense\r\n").status == 400
        assert w.text("/last") == "-74"


def test_client_that_leaves_amid_its_body():
    with deeds() as w:
        with connected(w) as client:
            send_request(client, "/echo", method="POST", headers=("Content-Length: 1000",))
            client.send(b"x")
            w.wait_until(lambda: w.cell()[3] >= 1)
        w.wait_until(lambda: w.text("/closes") == "0 1 0")
        assert w.text("/last") == "-104"


def test_body_that_does_not_come():
    with deeds("--body-timeout=50ms") as w:
        with connected(w) as client:
            send_request(client, "/echo", method="POST", headers=("Content-Length: 1000",))
            assert client.answer().status == 408
        assert w.text("/last") == "-110"


def test_answer_before_the_body_is_there():
    """A short rest is passed over, for a long one the connection is not worth it."""
    with deeds() as w:
        with connected(w) as client:
            send_request(client, "/early", method="POST", headers=("Content-Length: 10",))
            client.send(b"12345")
            assert client.answer().body == b"early"
            client.send(b"67890")
            assert client.request("/").body == b"hello\n"
        with connected(w) as client:
            send_request(client, "/early", method="POST", headers=("Content-Length: 1000000",))
            client.send(b"12345")
            a = client.answer()
            assert a.body == b"early" and a.closes


def test_body_that_nobody_reads_is_passed_over():
    with deeds() as w, connected(w) as client:
        for headers, body in ((("Content-Length: 5000",), b"b" * 5000), ((CHUNKED,), chunks(b"GET / HTTP/1.1\r\n\r\n"))):
            assert client.request("/", method="POST", headers=headers, body=body).body == b"hello\n"
        assert client.request("/").body == b"hello\n"


def send_what_fits(sock, data):
    """Until the worker takes no more: for a moment at least, in which it sleeps."""
    sent = 0
    sock.setblocking(False)
    try:
        while sent < len(data):
            sent += sock.send(data[sent : sent + 65536])
    except BlockingIOError:
        pass
    sock.settimeout(20)
    return sent


def test_upload_is_streamed_with_back_pressure():
    """50 MiB; while the module does not want them the client has to wait, and the worker does not grow."""
    n = 50 << 20
    with deeds("--max-body=100M", "--body-timeout=1min", "--answer-timeout=1min") as w, connected(w) as client:
        w.text("/")
        before = w.rss()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        send_request(client, "/upload?pause", method="PUT", headers=(f"Content-Length: {n}",))
        w.wait_until(lambda: w.cell()[3] >= 2)
        data = b"u" * n
        sent = send_what_fits(client.sock, data)
        assert sent < n
        assert w.text("/resume") == "0"
        client.sock.sendall(memoryview(data)[sent:])
        assert client.answer().body == b"%d bytes" % n
        assert w.rss() - before < 8192
        assert client.request("/").body == b"hello\n"
