# SPDX-License-Identifier: MIT
"""A worker that asks to be replaced ("suicide"): its successor is ready first, it finishes what it has, and ends."""

import contextlib
import json
import os
import pathlib
import signal
import time

import pytest
from harness import Process
from lifecycle import Asking, assert_always, begin, connected, elapse, gate, pids, tell, wait_said
from worker_harness import READY, Worker

AT_ONCE = 'restart: { backoff_min = "1ms"; backoff_max = "20ms"; limit = 0; };'
WAYS = {
    "/suicide?a%20reason": "a reason",
    "/suicide": "it asked for that",
    "/retire?another%20%22one%22": 'another "one"',
    "/retire": "it asked for that",
    "/leave": "it has answered workers.max_requests",
}


def leave(m, command="/suicide"):
    """The worker that was told so; it may be gone already."""
    workers = {w.pid: w for w in m.worker_processes()}
    return workers[int(tell(m, command))]


def leave_all(m, pids_):
    """Each worker by a connection of its own."""
    for pid in pids_:
        with connected(m, pid) as client:
            assert client.request("/suicide").status == 200


def settled(m, n, without=()):
    """Until so many workers are there and all of them are ready, none of these."""

    def is_settled():
        now = pids(m)
        return len(now) == n and not now & set(without) and m.stderr().count(" is ready.") >= len(without) + n

    m.wait_until(is_settled, f"{n} workers, without {without}")


@pytest.mark.parametrize("command, reason", WAYS.items(), ids=list(WAYS))
def test_replacement_first(ready, tmp_path, command, reason):
    """Until the next one is ready the old one serves, and STATUS never knows of a gap."""
    m = begin(ready, tmp_path, AT_ONCE, workers=1)
    since = len(m.statuses())
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}")
    old = leave(m, command)
    with open(at, "w"):
        assert len(pids(m)) == 2 and old.pid in pids(m)
        assert m.whoami()["pid"] == old.pid
        assert m.stderr().count(" is ready.") == 1
    old.wait_end()
    wait_said(m, f"Worker 1 (pid {old.pid}) exited with status 0.")
    (new,) = m.worker_processes()
    assert m.whoami()["pid"] == new.pid
    assert_always(m, "1/1 workers ready", since)
    said = m.stderr()
    assert f"Worker 1 (pid {old.pid}) is to be replaced: {reason}." in said
    assert said.index(f"(pid {new.pid}) is ready.") < said.index(f"(pid {old.pid}) exited")
    assert "killed" not in said and "trying again" not in said


def test_clients_notice_nothing(ready, tmp_path):
    """All workers, again and again, under clients: every request is answered, STATUS always has them all."""
    m = begin(ready, tmp_path, AT_ONCE, workers=2)
    since = len(m.statuses())
    gone = set()
    with Asking(m):
        for _ in range(4):
            now = pids(m)
            leave_all(m, now)
            gone |= now
            settled(m, 2, gone)
    assert_always(m, "2/2 workers ready", since)


def test_many_at_once(ready, tmp_path):
    """All of eight ask in the same moment: each gets its own successor first."""
    m = begin(ready, tmp_path, AT_ONCE, workers=8)
    old = m.worker_processes()
    since = len(m.statuses())
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}")
    leave_all(m, [w.pid for w in old])
    writer = os.open(at, os.O_RDWR)
    try:
        m.wait_until(lambda: len(pids(m)) == 16, "eight successors")
        assert not any(w.ended() for w in old)
        assert m.get().status == 200
    finally:
        os.close(writer)

    def let_pass():  # who was not at the gate yet
        with contextlib.suppress(OSError):
            os.close(os.open(at, os.O_WRONLY | os.O_NONBLOCK))
        return all(w.ended() for w in old)

    m.wait_until(let_pass, "the end of the old ones")
    settled(m, 8, [w.pid for w in old])
    assert_always(m, "8/8 workers ready", since)
    slots = sorted(int(w.environment()["MUSTER_WORKER"]) for w in m.worker_processes())
    assert slots == list(range(1, 9))


def test_open_request_is_finished(ready, tmp_path):
    """What the old one has accepted it answers, however late the request's last bytes come; new clients go to the next."""
    m = begin(ready, tmp_path, AT_ONCE, workers=1)
    since = len(m.statuses())
    with contextlib.closing(m.connect()) as client:
        client.send(b"GET /whoami HTTP/1.1\r\nHost: x\r\n")
        m.wait_connections(1)
        old = leave(m)
        m.wait_until(lambda: m.whoami()["pid"] != old.pid, "the successor")
        assert not old.ended()
        client.send(b"\r\n")
        answer = client.answer()
        assert answer.status == 200 and json.loads(answer.body)["pid"] == old.pid
        assert answer.closes and client.at_end()
    old.wait_end()
    assert_always(m, "1/1 workers ready", since)


def test_stubborn_one_is_killed(ready, tmp_path):
    """Past stop_timeout; the successor has served for long by then."""
    m = begin(ready, tmp_path, 'workers: { count = 1; stop_timeout = "500ms"; };\n' + AT_ONCE)
    since = len(m.statuses())
    tell(m, "/stubborn")
    old = leave(m)
    wait_said(m, " is ready.", 2)
    old.wait_end()  # until then it serves too, and would take a client along
    wait_said(m, f"Worker 1 (pid {old.pid}) was killed: not finished within 500ms.")
    assert m.whoami()["pid"] != old.pid
    assert f"Worker 1 (pid {old.pid}) did not finish within 500ms, killing it." in m.stderr()
    assert_always(m, "1/1 workers ready", since)


def test_twice(ready, tmp_path):
    """In whatever way it says it again: one successor, one line."""
    m = begin(ready, tmp_path, AT_ONCE, workers=1)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}")
    old = leave(m, "/suicide?first")
    with open(at, "w"):
        for command in ("/suicide?second", "/retire", "/leave", "/suicide"):
            assert leave(m, command).pid == old.pid
        # Behind all of these the master reads this one.
        tell(m, "/status?after%20that")
        m.wait_status(lambda s: s.endswith("; worker 1: after that"))
        assert len(pids(m)) == 2
    old.wait_end()
    settled(m, 1, [old.pid])
    assert m.stderr().count("is to be replaced") == 1 and "is to be replaced: first." in m.stderr()
    assert m.stderr().count(" is ready.") == 2


STARTING = """
import json
if os.path.exists(os.environ["FLAG"]):
    os.unlink(os.environ["FLAG"])
    os.write(int(os.environ["MUSTER_CHANNEL_FD"]), b'{"act":"suicide","reason":"I do not even start"}\\n')
    wait_for_ever()
real(REAL)
"""


def test_while_starting(ready, tmp_path):
    """One that is not ready yet is ended and counts like a death: the next but one waits for the pause."""
    flag = tmp_path / "flag"
    m = ready('restart: { backoff_min = "40ms"; };', worker=STARTING, workers=1, environment={"FLAG": str(flag)})
    (first,) = m.worker_processes()
    flag.write_text("")
    first.kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("0/1"))
    m.wait_status(lambda s: s.startswith("1/1"))
    assert "is to be replaced: I do not even start." in m.stderr()
    assert "Worker 1 died early 2 times in a row, trying again in 40ms." in m.stderr()
    assert m.get().status == 200
    m.wait_until(lambda: len(pids(m)) == 1, "the end of the second")


def test_not_again_and_again(ready, tmp_path):
    """One that wants to leave as soon as it is ready is replaced no more often than every backoff_min, and serves until then."""
    m = begin(ready, tmp_path, 'restart: { backoff_min = "1h"; backoff_max = "1h"; };', workers=1)
    old = leave(m)
    wait_said(m, "is to be replaced")
    tell(m, "/status?after%20that")
    m.wait_status(lambda s: s.endswith("; worker 1: after that"))
    assert pids(m) == {old.pid}
    m.kill(signal.SIGHUP)  # a reload does not wait for that
    assert "generation 2" in m.wait_ready()
    old.wait_end()


# Successors that fail


def reloads(m):
    m.kill(signal.SIGHUP)
    return "; reload failed" not in m.wait_ready()


@pytest.mark.parametrize(
    "mode, reason",
    [
        ("exit=3", "exited with status 3"),
        ("crash-at-start", "was killed by signal 6, SIGABRT"),
        ("never-ready", "was killed: not ready within 300ms"),
    ],
)
def test_successor_fails(ready, tmp_path, mode, reason):
    """The old one serves on, STATUS says why there is no next one, and it is tried again until there is."""
    m = begin(ready, tmp_path, AT_ONCE, workers=1)
    m.write_config('workers: { count = 1; start_timeout = "300ms"; soak = "1ms"; };\n' + AT_ONCE)
    m.wait_until(lambda: reloads(m), "a worker in 300ms")  # the first one had more time
    m.wait_until(lambda: len(pids(m)) == 1, "the end of the first")
    since = len(m.statuses())
    m.life.set_mode(mode)
    old = leave(m)
    m.wait_status(lambda s: s.startswith("1/1 workers ready") and s.endswith(f"; worker 1 {reason}"))
    wait_said(m, f") {reason}.", 3)
    assert m.whoami()["pid"] == old.pid
    assert len(pids(m)) <= 2
    m.life.set_mode("")
    old.wait_end()
    m.wait_status(lambda s: s.startswith("1/1") and reason not in s)
    assert m.whoami()["pid"] != old.pid
    assert_always(m, "1/1 workers ready", since)


def test_old_one_dies_first(ready, tmp_path):
    """Then the successor that is on its way is the next worker, and no third is started."""
    m = begin(ready, tmp_path, AT_ONCE, workers=1)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}")
    old = leave(m)
    with open(at, "w"):
        (successor,) = pids(m) - {old.pid}
        old.kill(signal.SIGKILL)
        m.wait_status(lambda s: s.startswith("0/1 workers ready"))
        assert pids(m) == {successor}
    m.wait_status(lambda s: s.startswith("1/1 workers ready") and "SIGKILL" not in s)
    assert m.whoami()["pid"] == successor


# During a reload


def test_old_one_during_a_reload(ready, tmp_path):
    """It gets a successor of its own generation, and that one is replaced by the reload."""
    m = begin(ready, tmp_path, AT_ONCE, workers=1)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}@generation=2")
    since = len(m.statuses())
    m.kill(signal.SIGHUP)
    with open(at, "w"):
        old = leave(m)
        old.wait_end()
        second = m.whoami()
        assert second["generation"] == 1
        second = Process(second["pid"], m)
    assert "STATUS=1/1 workers ready" in m.wait_ready()
    second.wait_end()
    assert m.whoami()["generation"] == 2
    assert_always(m, "1/1 workers ready", since)


def test_reload_commits_before_the_successor(ready, tmp_path):
    """A successor of the old generation that is not ready by then is not needed any more."""
    m = begin(ready, tmp_path, 'workers: { count = 1; soak = "1ms"; };\n' + AT_ONCE)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}@generation=1")
    old = leave(m)
    with open(at, "w"):
        (successor,) = (w for w in m.worker_processes() if w.pid != old.pid)
        m.kill(signal.SIGHUP)
        assert "generation 2" in m.wait_ready()
        old.wait_end()
        successor.wait_end()
    wait_said(m, f"(pid {successor.pid}) was killed: not needed any more.")
    assert m.whoami()["generation"] == 2


CANARY = {
    "suicide": ("/suicide?not%20well", "worker 1 wants to be replaced: not well"),
    "board": ("/leave", "worker 1 wants to be replaced: it has answered workers.max_requests"),
    "stopping": ("/notify?STOPPING=1", "worker 1 stopped by itself"),
}


@pytest.mark.parametrize("command, reason", CANARY.values(), ids=list(CANARY))
def test_canary_leaves(ready, tmp_path, command, reason):
    """A new worker that wants to leave in its trial fails the reload, with a reason, and goes; nobody misses a thing."""
    m = begin(ready, tmp_path, 'workers: { count = 1; soak = "1h"; stop_timeout = "500ms"; };\n' + AT_ONCE)
    before = pids(m)
    since = len(m.statuses())
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    wait_said(m, " is ready.", 2)
    (canary,) = (w for w in m.worker_processes() if w.pid not in before)
    with connected(m, canary.pid) as client:
        client.send(f"GET {command} HTTP/1.1\r\nHost: x\r\n\r\n".encode())  # it may be gone before it answers
        assert m.wait_ready().endswith(f"generation 1; reload failed: {reason}")
    canary.wait_end()
    assert pids(m) == before
    assert m.whoami()["generation"] == 1
    assert_always(m, "1/1 workers ready", since)
    m.kill()
    assert m.wait_exit() == 0


def test_canary_is_asked_to_go_from_outside(ready):
    """Likewise when somebody else sends it SIGTERM: STATUS has a reason for the failed reload."""
    m = ready('workers: { count = 1; soak = "1h"; };')
    before = pids(m)
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    wait_said(m, " is ready.", 2)
    (canary,) = (w for w in m.worker_processes() if w.pid not in before)
    canary.kill(signal.SIGTERM)
    assert m.wait_ready().endswith("generation 1; reload failed: worker 1 stopped by itself")
    canary.wait_end()
    assert pids(m) == before


# During a stop


def test_stop_while_leaving(ready, tmp_path):
    """Both go, and the successor is not waited for."""
    m = begin(ready, tmp_path, AT_ONCE, workers=1)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}")
    leave(m)
    with open(at, "w"):
        workers = m.worker_processes()
        assert len(workers) == 2
        m.kill()
        assert m.wait_exit() == 0
    assert all(w.ended() for w in workers)


def test_while_stopping(ready, tmp_path):
    """Who asks then gets no successor."""
    m = begin(ready, tmp_path, 'workers: { count = 1; stop_timeout = "1h"; };\n' + AT_ONCE)
    with contextlib.closing(m.connect()) as client:
        client.send(b"GET /suicide HTTP/1.1\r\nHost: x\r\n")
        m.wait_connections(1)
        (worker,) = m.worker_processes()
        m.kill()
        m.wait_message("STOPPING=1")
        client.send(b"\r\n")
        assert client.answer().status == 200
    assert m.wait_exit() == 0
    assert worker.ended() and m.stderr().count(" is ready.") == 1


def test_one_of_two_that_is_scaled_away(ready, tmp_path):
    """A slot that goes takes the successor with it that was on its way."""
    m = begin(ready, tmp_path, 'workers: { count = 2; };\n' + AT_ONCE)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}")
    (second,) = (w for w in m.worker_processes() if w.environment()["MUSTER_WORKER"] == "2")
    (first,) = pids(m) - {second.pid}
    leave_all(m, [second.pid])
    with open(at, "w"):
        m.kill(signal.SIGTTOU)
        m.wait_status(lambda s: s.startswith("1/1 workers ready"))
        second.wait_end()
        m.wait_until(lambda: pids(m) == {first}, "the end of the successor")
    elapse(m, 0.1)
    assert pids(m) == {first}


def test_no_connection_is_forgotten(tmp_path):
    """The kernel wakes one worker for a connection. When that one is told to go in the same moment, its sibling, which
    sleeps, would never hear of it."""
    (tmp_path / "index.html").write_text("hello\n")
    for round_ in range(100):
        with Worker(tmp_path) as first, first.sibling() as second:
            workers = [w.wait_state(READY) for w in (first, second)]
            for worker in workers:  # asleep
                worker.wait_until(lambda w=worker: pathlib.Path(f"/proc/{w.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S")
            began = time.monotonic()
            with contextlib.closing(first.connect()) as client:
                workers[round_ % 2].kill(signal.SIGTERM)
                sent = None
                try:
                    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    sent = time.monotonic()
                    assert client.answer().status == 200
                except (EOFError, ConnectionError):  # of who drains it has a second for its request
                    assert (sent or time.monotonic()) - began >= 0.9
