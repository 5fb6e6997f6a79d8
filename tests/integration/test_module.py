# SPDX-License-Identifier: MIT
"""What a module can do with a request, by one that does what its path says."""

import contextlib
import os
import signal
import socket
import time

import pytest

from module_harness import connected, deeds, example, read_stream, send_request
from worker_harness import DRAINING


def test_request_is_shown_whole():
    with deeds() as w, connected(w) as client:
        a = client.request("/look?a=b&c", headers=("X-Test: one", "x-test: two", "Empty:"))
        assert a.body.decode().splitlines() == [
            "1 GET", "/look?a=b&c", "/look", "a=b&c", "test", "1.1", "127.0.0.1",
            "Host=test", "X-Test=one", "x-test=two", "Empty=", "one",
        ]
        a = client.request("http://other:81/look", method="BREW", version="1.0")
        assert a.body.decode().splitlines()[:6] == ["0 BREW", "/look", "/look", "", "other:81", "1.0"]


def test_parameters():
    with deeds() as w, connected(w) as client:
        for query, value in (
            ("name=a%20b+c", "a b c"), ("x=1&name=%41&name=2", "A"), ("x=name&name", ""), ("names=1&nam=2", "(none)"),
            ("name=%zz", "(none)"), ("name=%4", "(none)"), ("name=%00", "(none)"), ("&&name=1=2", "1=2"), ("", "(none)"),
        ):
            assert client.request(f"/parameter?{query}").body.decode() == value


def test_parameter_outlives_the_answer():
    """Until the handler returns, as every other text of a request."""
    with deeds() as w:
        assert w.text("/still?name=abcdefghijklmnopqrstuvwxyz") == "abcdefghijklmnopqrstuvwxyz"
        assert w.text("/last") == "0"


def test_head_is_answered_like_get():
    with deeds() as w, connected(w) as client:
        a = client.request("/", method="HEAD")
        assert (a.status, a.headers["content-length"], a.body) == (200, "6", b"")
        assert client.request("/").body == b"hello\n"


def test_many_requests_come_back_in_order():
    """Pipelined, with late ones among them, on one connection."""
    with deeds() as w, connected(w) as client:
        for target in ("/later", "/", "/later", "/look", "/"):
            send_request(client, target)
        bodies = [client.answer().body for _ in range(5)]
        assert bodies[:3] == [b"late", b"hello\n", b"late"] and bodies[4] == b"hello\n"


def test_late_answers():
    """While some requests wait, others are answered; all of them are, by a request that comes later."""
    with deeds() as w, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connected(w)) for _ in range(20)]
        for client in waiting:
            send_request(client, "/park")
        w.wait_until(lambda: w.cell()[3] >= 20)
        assert w.text("/") == "hello\n"
        assert w.text("/release") == "20 of 20"
        assert all(client.answer().body == b"released" for client in waiting)
        assert w.text("/closes") == "20 0 0"


def test_offloaded_work_holds_nobody_up():
    """Four threads stand in their work, and one more waits for them, while others are answered."""
    with deeds("--threads=4") as w, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connected(w)) for _ in range(5)]
        for client in waiting:
            send_request(client, "/offload")
        w.wait_until(lambda: w.cell()[3] >= 5)
        for _ in range(5):
            assert w.text("/") == "hello\n"
            assert w.text("/open") == "open"
        assert all(client.answer().body == b"worked" for client in waiting)
        names = [open(f"/proc/{w.serving}/task/{tid}/comm").read().strip() for tid in os.listdir(f"/proc/{w.serving}/task")]
        assert sorted(names) == ["muster-worker", "offload-1", "offload-2", "offload-3", "offload-4"]


def test_no_thread_and_no_loop_without_need():
    with example("hello") as w:
        assert w.text("/").startswith("Hello, 127.0.0.1: this is request 1 ")
        assert os.listdir(f"/proc/{w.serving}/task") == [str(w.serving)]
        assert "libsystemd" not in open(f"/proc/{w.serving}/maps").read()


def test_streamed_answer_with_trailers():
    with deeds() as w, connected(w) as client:
        send_request(client, "/stream?200000")
        head, body, trailers = read_stream(client)
        assert "Transfer-Encoding: chunked" in head
        assert (len(body), trailers) == (200000, "X-Left: 0")
        assert len(client.request("/stream?70000", headers=("X-Length: 1",)).body) == 70000


def test_slow_reader_is_waited_for():
    """The worker keeps little of an answer that the client does not read, and goes on when it does."""
    with deeds("--send-timeout=1min") as w, connected(w, rcvbuf=65536) as client:
        w.text("/")
        before, n = w.rss(), 20_000_000
        send_request(client, f"/stream?{n}", headers=("X-Length: 1",))
        w.wait_until(lambda: w.cell()[3] >= 2)
        w.wait_asleep()
        assert int(w.text("/left")) > n - 8_000_000
        assert w.rss() - before < 4096
        read = 0
        while read < n:
            data = client.sock.recv(1 << 20)
            assert data
            read += len(data)
        w.wait_until(lambda: w.text("/closes") == "1 0 0")


def test_client_that_leaves_ends_its_stream():
    with deeds() as w:
        with connected(w, rcvbuf=4096) as client:
            send_request(client, "/stream?50000000")
            client.fill()
        w.wait_until(lambda: w.text("/closes") == "0 1 0")
        assert w.text("/release") == "0 of 0"


def test_client_that_leaves_before_its_late_answer():
    """A reset is seen at once, and the handle that the module keeps is of no effect."""
    with deeds() as w:
        client = w.connect()
        send_request(client, "/park")
        w.wait_until(lambda: w.cell()[3] >= 1)
        client.reset()
        w.wait_until(lambda: w.text("/closes") == "0 1 0")
        assert w.text("/release") == "0 of 1"


def test_half_closed_client_gets_its_late_answer():
    with deeds() as w, connected(w) as client:
        send_request(client, "/park")
        client.sock.shutdown(socket.SHUT_WR)
        w.wait_until(lambda: w.cell()[3] >= 1)
        assert w.text("/release") == "1 of 1"
        assert client.answer().body == b"released"


def test_client_that_goes_on_after_the_last_request():
    """One that asked for the close gets the answer and the end, and no reset, whatever it has sent by then."""
    with deeds() as w, connected(w) as client:
        send_request(client, "/park", headers=("Connection: close",))
        w.wait_until(lambda: w.cell()[3] >= 1)
        client.send(b"\r\n")
        assert w.text("/release") == "1 of 1"
        a = client.answer()
        assert a.body == b"released" and a.closes and client.at_end()


def test_events():
    """They come to all who listen, whole; one who leaves is forgotten, and the end of all is regular."""
    with deeds() as w, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(w)) for _ in range(3)]
        for client in clients:
            send_request(client, "/events")
            while b": hello\n" not in client.buffer:
                assert client.fill()
            assert b"Content-Type: text/event-stream\r\n" in client.buffer
        assert w.text("/emit?2") == "3 0 0"
        clients[0].close()
        w.wait_until(lambda: w.text("/closes") == "0 1 0")
        assert w.text("/emit?1") == "2 0 0"
        assert w.text("/end") == "ended"
        for client in clients[1:]:
            _, body, _ = read_stream(client)
            assert body == b": hello\nevent: tick\nid: 7\ndata: xx\ndata: y\n\nevent: tick\nid: 7\ndata: x\ndata: y\n\n"
        assert w.text("/closes") == "2 1 0"


def test_event_is_sent_whole_or_not_at_all():
    """To one who does not read the events are refused after a while, and are taken again when it does."""
    n = 900_000
    with deeds("--send-timeout=1min") as w, connected(w, rcvbuf=4096) as client:
        send_request(client, "/events")
        w.wait_until(lambda: w.cell()[3] >= 1)
        w.text("/emit?1")
        before, taken = w.rss(), 0
        while (answer := w.text(f"/emit?{n}")) == "1 0 0":
            taken += 1
            assert taken < 100
        assert answer == "0 1 0"
        assert w.rss() - before < 16384
        size = n + 10000
        while len(client.buffer) < taken * n:
            assert client.fill()
        w.wait_until(lambda: w.text("/emit?1").split()[2] == "1")
        w.text("/end")
        _, body, _ = read_stream(client)
        events = body.split(b"\n\n")
        assert all(e.endswith(b"data: " + b"x" * n + b"\ndata: y") for e in events[1 : taken + 1])
        assert events[-1] == b"" and len(events) >= taken + 3 and size > n


def test_client_leaves_between_the_end_and_the_rest():
    """Of a stream that was ended while an event waits, and while the request is still coming. The end is told, once."""
    with deeds("--send-timeout=1min", "--body-timeout=1min") as w, connected(w, rcvbuf=4096) as client:
        send_request(client, "/both-ways", method="POST", headers=("Content-Length: 100",))
        w.wait_until(lambda: w.cell()[3] >= 1)
        while w.text("/emit?900000") == "1 0 0":
            pass
        assert w.text("/end") == "ended"
        assert w.text("/closes") == "0 0 0"
        client.reset()
        w.wait_until(lambda: w.connections <= 1)
        assert w.text("/closes") == "0 1 0"
        assert w.text("/last") == "0"  # to the module it was over by then


def test_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" + b"defg" * 100000)
    with deeds() as w:
        assert w.get(f"/file?{tmp_path}/file").body == b"defg" * 100000
        assert w.text(f"/file?{tmp_path}") == "-22"
        (tmp_path / "file").write_bytes(b"ab")
        assert w.text(f"/file?{tmp_path}/file") == "-34"
        assert w.text("/file?/nowhere") == "-9"


def test_misuse_has_an_error_and_no_effect():
    with deeds() as w:
        assert w.text("/wrong") == "1234567890"
        assert w.text("/twice") == "once"
        assert w.text("/last") == str(-116)
        assert w.text("/stale") == "0 wrong"


def test_request_can_be_given_up():
    with deeds() as w, connected(w) as client:
        send_request(client, "/abort-request")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
        assert w.text("/") == "hello\n"


def test_request_that_is_never_answered():
    """The worker does so in the module's stead."""
    with deeds("--answer-timeout=50ms") as w:
        a = w.get("/never")
        assert a.status == 503
        assert w.text("/closes") == "0 1 0"


def test_answer_that_is_late_for_a_stall():
    """It is the worker that stood still: what the module has to say by then was in time."""
    with deeds("--answer-timeout=200ms") as w, connected(w) as client:
        send_request(client, "/later?msec=100")
        w.wait_until(lambda: w.cell()[3] >= 1)
        with w.stopped():
            time.sleep(0.5)
        assert client.answer().body == b"late"


def test_drain():
    """The module is told, and what is open is finished: late answers, work, and streams, which the module ends."""
    with deeds() as w, connected(w) as events, connected(w) as working:
        send_request(events, "/events")
        send_request(working, "/offload")
        w.wait_until(lambda: w.cell()[3] >= 2)
        with connected(w) as last:
            w.text("/")
            w.kill(signal.SIGTERM)
            w.wait_state(DRAINING)
            read_stream(events)
            send_request(last, "/open")
            assert last.answer().body == b"open"
        assert working.answer().body == b"worked"
        assert w.wait_exit() == 0
        assert w.stderr() == "module: retire\nmodule: stop\n"


def test_accepted_work_is_done_before_the_end():
    """Also when nobody waits for it any more."""
    with deeds() as w:
        with connected(w) as client:
            send_request(client, "/offload")
            w.wait_until(lambda: w.cell()[3] >= 1)
            w.text("/open")
            client.reset()
        w.kill(signal.SIGTERM)
        assert w.wait_exit() == 0
        assert w.stderr() == "module: retire\nmodule: stop\n"


def test_module_that_ends_its_loop():
    with deeds("--no-twin") as w:
        with connected(w) as client:
            send_request(client, "/exit-loop")
            assert w.wait_exit() == 1
        assert w.reason() == "The module has ended its event loop."


def test_open_requests_are_canceled_at_the_end():
    """Their clients have not left, and the module is told so: of a late answer, a stream, and a body that is still coming."""
    with deeds("--no-twin") as w, contextlib.ExitStack() as stack:
        late, stream, body, last = (stack.enter_context(connected(w)) for _ in range(4))
        send_request(late, "/park")
        send_request(stream, "/events")
        send_request(body, "/echo", method="POST", headers=("Content-Length: 1000",))
        w.wait_until(lambda: w.cell()[3] >= 3)
        send_request(last, "/exit-loop")
        assert w.wait_exit() == 1
        assert w.stderr().count("module: canceled\n") == 3


def test_module_that_forks():
    """Its child has the connections open yet, so that epoll tells of one that the worker has closed."""
    with deeds() as w, connected(w) as client:
        assert client.request("/").status == 200
        assert client.request("/fork", headers=["Connection: close"]).body == b"forked"
        w.wait_until(lambda: w.connections == 0)
        send_request(client, "/")
        assert w.text("/open") == "open" and w.text("/open") == "open"


def test_what_a_child_has_open_is_no_matter_of_the_next_client():
    """Who has the number now of a connection that was closed, and that is reset while the child has it open yet."""
    with deeds() as w, connected(w) as client:
        assert client.request("/").status == 200  # by now epoll knows it
        assert client.request("/fork", headers=["Connection: close"]).body == b"forked"
        w.wait_until(lambda: w.connections == 0)
        with connected(w) as late:
            send_request(late, "/park")
            w.wait_until(lambda: w.cell()[3] == 3)
            client.reset()
            assert w.text("/release") == "1 of 1"
            assert late.answer().body == b"released"


def test_answer_while_the_loop_prepares():
    """It is sent before the worker waits, also when all else of the turn is over: the request came behind one that is answered late."""
    with deeds() as w, connected(w) as client, connected(w) as other:
        send_request(client, "/park")
        send_request(client, "/prepare")
        w.wait_until(lambda: w.cell()[3] >= 1)
        assert other.request("/release").body == b"1 of 1"
        assert client.answer().body == b"released"
        assert client.answer().body == b"prepared"


def test_idle_module_wakes_nobody():
    with deeds(channel=True) as w:
        assert w.text("/later") == "late"
        w.wait_until(lambda: w.connections == 0)
        w.wait_asleep()
        before = w.switches()[0]
        for _ in range(3):
            n = w.beats()
            w.probe()
            w.wait_beats(n + 1)
            w.wait_asleep()
        assert w.switches()[0] - before <= 3 + 1
