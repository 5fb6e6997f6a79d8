# SPDX-License-Identifier: MIT
"""What a module says so that another process can go on: its requests' names, and the checkpoints of its streams."""

import contextlib
import errno
import os
import pathlib
import re

import pytest

from module_harness import EXAMPLES, MODULES, ModuleWorker, connected, read_stream, send_request
from worker_harness import READY

EMPTY = ("Content-Length: 0",)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def rerun(folder, name="rerun", *options):
    environment = {"RERUN_FOLDER": str(folder), "ORDERS_FOLDER": str(folder)}
    directory = EXAMPLES if name == "orders" else MODULES
    return ModuleWorker(directory / f"{name}.so", *options, environment=environment).wait_state(READY).wait_twin()


def calls(folder):
    with contextlib.suppress(FileNotFoundError):
        return (folder / "calls").read_text().splitlines()
    return []


def content(n):
    return (bytes(range(251)) * (n // 251 + 1))[:n]


#
# Names
#


def test_names_differ(folder):
    """On a connection and between them, of workers and of keepers; a client cannot make them the same."""
    with rerun(folder) as w, rerun(folder) as other, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(worker)) for worker in (w, w, other)]
        names = []
        for client in clients:
            for _ in range(3):
                send_request(client, "/id")
            names += [client.answer().body.decode() for _ in range(3)]
        w.kill_serving()
        names += [client.request("/id").body.decode() for client in clients]
        with connected(w) as client:
            names.append(client.request("/id").body.decode())
    assert len(set(names)) == len(names) == 13
    assert all(re.fullmatch(r"[0-9A-Za-z-]{1,47}", name) for name in names)


@pytest.mark.parametrize("method", ["POST", "PATCH", "GET"])
@pytest.mark.parametrize("before", [0, 1])
def test_name_survives(folder, method, before):
    """The request is run again until it is answered, by its name, also as the second of its connection."""
    with rerun(folder) as w, connected(w) as client:
        for _ in range(before):
            assert client.request("/").status == 200
        answer = client.request("/effect?deaths=2", method=method, headers=EMPTY)
        assert answer.status == 200 and w.takeovers() == 2
        assert calls(folder) == [answer.body.decode()] * 3
        assert client.request("/").status == 200


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_name_with_a_body(folder, size):
    """Asked for before it, the body is there again, of whatever size."""
    with rerun(folder) as w, connected(w) as client:
        body = content(size)
        answer = client.request("/effect?deaths=2&body=1", method="POST", headers=(f"Content-Length: {size}",), body=body)
        assert answer.status == 200 and w.takeovers() == 2
        last = chr(body[-1]) if body else "-"
        assert (folder / "calls").read_bytes().decode() == f"body {size} {last}\n{answer.body.decode()}\n" * 3


def test_no_name(folder):
    """Of which nobody asked is not run again, unless its method is safe."""
    with rerun(folder) as w, connected(w) as client:
        answer = client.request("/effect?deaths=1&anonymous=1", method="POST", headers=EMPTY)
        assert answer.status == 503 and b"Outcome unknown" in answer.body and answer.closes
        assert calls(folder) == ["anonymous"] and w.takeovers() == 1


def test_safe_method_needs_no_name(folder):
    with rerun(folder) as w, connected(w) as client:
        assert client.request("/effect?deaths=1&anonymous=1").body == b"anonymous"
        assert calls(folder) == ["anonymous"] * 2 and w.takeovers() == 1


def test_repeatable(folder):
    with rerun(folder, "rerun_repeatable") as w, connected(w) as client:
        answer = client.request("/effect?deaths=2&anonymous=1", method="POST", headers=EMPTY)
        assert answer.body == b"anonymous" and not answer.closes
        assert calls(folder) == ["anonymous"] * 3 and w.takeovers() == 2


def test_older_module_is_not_repeatable(folder):
    """One that was made with a header that did not know of it: what follows in its memory is not looked at."""
    with rerun(folder, "rerun_old") as w, connected(w) as client:
        assert client.request("/effect?deaths=1&anonymous=1", method="POST", headers=EMPTY).status == 503
        assert calls(folder) == ["anonymous"] and w.takeovers() == 1


#
# Checkpoints
#


def results(lines):
    return {name: int(number) for name, number in (line.split() for line in lines)}


def test_wrong_calls(folder):
    with rerun(folder) as w, connected(w) as client:
        send_request(client, "/limits")
        _, body, _ = read_stream(client)
        assert results(body.decode().splitlines()) == {
            "none": 0, "nowhere": 0, "early": -errno.EINVAL, "null": -errno.EINVAL, "empty": -errno.EINVAL,
            "large": -errno.EMSGSIZE, "most": 0, "begun": 0,
        }
        assert results(calls(folder)) == {"ended": -errno.ESTALE}
        stale = client.request("/stale").body.decode().splitlines()
        assert results(stale) == {"id": 0, "set": -errno.ESTALE, "get": 0, "null": 0}
        send_request(client, "/events")
        assert read_stream(client)[1] == f": {-errno.EINVAL}\n".encode()


def read_body(client, sized):
    if sized:
        answer = client.answer()
        assert answer.headers["x-test"] == "once"
        return answer.body
    head, body, _ = read_stream(client)
    assert head.count("X-Test: once") == 1
    return body


@pytest.mark.parametrize("sized", [0, 1])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [1000, 2000, 30_000, 50_000])
def test_death_at_a_checkpoint(folder, sized, method, when, at):
    """To the byte, from the last checkpoint, whatever was written behind it; at the first piece, in the middle, at the last."""
    with rerun(folder) as w, connected(w) as client:
        target = f"/stream?n=50000&piece=1000&sized={sized}&at={at}&when={when}"
        send_request(client, target.replace("&sized=0", ""), method=method, headers=EMPTY)
        if (when, at, method) == ("before", 1000, "POST"):
            answer = client.answer()  # there was no checkpoint
            assert answer.status == 503 and calls(folder) == ["from 0"]
            return
        assert read_body(client, sized) == content(50_000)
        assert client.request("/").status == 200  # of a sized one the client may have all before it is gone on with
        assert calls(folder) == ["from 0", f"from {at - 1000 * (when == 'before')}"]
        assert w.takeovers() == 1


@pytest.mark.parametrize("sized", [0, 1])
def test_deaths_while_it_is_sent(folder, sized):
    """Killed from outside, with a client that reads slowly."""
    n, target = 3_000_000, "/stream?n=3000000&piece=3000" + "&sized=1" * sized
    with rerun(folder, "rerun", "--send-timeout=1min") as w, connected(w, rcvbuf=4096) as client:
        send_request(client, target)
        for _ in range(10):
            assert client.fill()
            w.kill_serving()
            w.wait_twin()
        assert read_body(client, sized) == content(n)
        assert client.request("/").status == 200
        starts = [int(line.split()[1]) for line in calls(folder)]
        assert starts[0] == 0 and starts == sorted(starts) and len(starts) <= 11


@pytest.mark.parametrize("sized", [0, 1])
def test_piece_that_does_not_fit(folder, sized):
    """It is sent all the same, and is no reason to wait for ever."""
    with rerun(folder) as w, connected(w) as client:
        send_request(client, "/stream?n=1000000&piece=200000" + "&sized=1" * sized)
        assert read_body(client, sized) == content(1_000_000)
        assert w.takeovers() == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_death_at_a_piece_that_does_not_fit(folder, when):
    """Within it nobody can go on, and the client sees that; behind its checkpoint they can."""
    with rerun(folder) as w, connected(w) as client:
        send_request(client, f"/stream?n=1000000&piece=200000&sized=1&at=400000&when={when}")
        if when == "after":
            assert read_body(client, True) == content(1_000_000)
            assert client.request("/").status == 200
            assert calls(folder) == ["from 0", "from 400000"]
            return
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
        assert calls(folder) == ["from 0"]
        w.wait_until(lambda: w.takeovers() == 1)


def test_stream_that_gets_another_answer(folder):
    """What the client has is not followed by something else."""
    with rerun(folder) as w, connected(w) as client, connected(w) as bystander:
        assert bystander.request("/").status == 200
        send_request(client, "/other")
        while not client.buffer.endswith(b"begun"):
            assert client.fill()
        w.kill_serving()
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
        assert b"something" not in client.buffer
        assert bystander.request("/").status == 200


#
# The example
#


def test_orders(folder):
    """Each is there once and whole, whenever the process dies."""
    with rerun(folder, "orders") as w, connected(w) as client:
        names = []
        for i in range(3):
            body = content(100_000 + i)
            client.send(f"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            client.send(body[:50_000])
            w.kill_serving()
            client.send(body[50_000:])
            answer = client.answer()
            assert answer.status == 201
            names.append(answer.body.decode().strip())
            assert pathlib.Path(folder, names[-1]).read_bytes() == body
        assert sorted(os.listdir(folder)) == sorted(names)
        assert client.request("/").status == 405
