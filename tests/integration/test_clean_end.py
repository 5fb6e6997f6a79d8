# SPDX-License-Identifier: MIT
"""When the service ends nothing of it is left: workers however they behave, and whatever they have started."""

import contextlib
import os
import pathlib
import signal
import time

import pytest
from harness import Process
from lifecycle import begin, connected, gate, grandchild, is_stopped, pids
from worker_harness import DEADLINE

SHORT = 'workers: { count = 2; stop_timeout = "300ms"; watchdog = "0"; };\nrestart: { backoff_min = "1ms"; };'
COMMANDS = ["/stubborn", "/hang", "/hang?silent", "/deadlock", "/signal?n=19", "/close-channel", "/stubborn?abort=1"]


# A stop


@pytest.mark.parametrize("command", COMMANDS)
def test_stop(ready, tmp_path, command):
    """Children first, the master last, with success: it had done what it was told."""
    well = command == "/close-channel"
    m = begin(ready, tmp_path, SHORT.replace("300ms", "1min") if well else SHORT)
    workers = m.worker_processes()
    for w in workers:  # one after the other, as each may be the last that answers
        with connected(m, w.pid) as client:
            client.send(f"GET {command} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            if "silent" not in command:
                assert client.answer().status == 200
        if "signal" in command:  # by itself, or the next connected() would stop it, and let it go on
            m.wait_until(lambda: is_stopped(w), "its stop")
    m.kill()
    assert m.wait_exit() == 0
    assert all(w.ended() for w in workers)
    assert m.stderr().count("did not finish within") == (0 if well else 2)
    assert m.stderr().count("did not finish within 300ms, killing it.") == (0 if well else 2)


def test_stop_waits_as_long_as_it_may(ready, tmp_path):
    """One is stubborn and one has an open request: that one is answered, the other one is killed at its time."""
    m = begin(ready, tmp_path, SHORT.replace("300ms", "5s"))
    first, second = m.worker_processes()
    with connected(m, first.pid) as client:
        assert client.request("/stubborn").status == 200
    with connected(m, second.pid) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        began = time.monotonic()
        m.kill()
        m.wait_message("STOPPING=1")
        client.send(b"\r\n")
        assert client.answer().status == 200
    assert m.wait_exit() == 0
    assert time.monotonic() - began >= 5
    assert f"(pid {second.pid}) exited with status 0." in m.stderr()
    assert f"(pid {first.pid}) was killed: not finished within 5s." in m.stderr()


@pytest.mark.parametrize("mode", ["never-ready", "never-ready stubborn", "hang-at-start", "slow-ready=3600000"])
def test_stop_while_starting(start, tmp_path, mode):
    """A worker that is not ready has nothing to finish: it is not waited for."""
    m = begin(start, tmp_path, 'workers: { count = 2; start_timeout = "1h"; stop_timeout = "1h"; };', mode)
    m.wait_status("Starting: 0/2 workers ready")
    workers = m.worker_processes()
    assert len(workers) == 2
    m.kill()
    assert m.wait_exit() == 0
    assert all(w.ended() for w in workers)


# What workers have started

FORKS = ["/fork", "/fork?child"]


@pytest.mark.parametrize("command", FORKS)
def test_stop_with_grandchildren(ready, tmp_path, command):
    """They ignore SIGTERM, and are gone before the master."""
    m = begin(ready, tmp_path, SHORT)
    left = [grandchild(m, command) for _ in range(4)]
    m.kill()
    assert m.wait_exit() == 0
    assert all(p.ended() for p in left)


@pytest.mark.parametrize("command", FORKS)
@pytest.mark.parametrize("end", ["/crash", "/exit", "/signal?n=9", "/suicide", "/hang", "/stubborn"])
def test_end_of_a_worker(ready, tmp_path, command, end):
    """What it has started ends with it, however it ends, and what others have started does not."""
    m = begin(ready, tmp_path, SHORT.replace('watchdog = "0"', 'watchdog = "4s"') if end == "/hang" else SHORT)
    one, other = m.worker_processes()
    with connected(m, other.pid) as client:
        spared = Process(int(client.request(command).body), m)
    with connected(m, one.pid) as client:
        left = Process(int(client.request(command).body), m)
        client.send(f"GET {end} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if end == "/stubborn":
            assert client.answer().status == 200
            assert client.request("/suicide").status == 200
        one.wait_end()
    left.wait_end()
    m.wait_until(lambda: m.statuses()[-1].startswith("2/2"), "the next one")
    assert other.pid in pids(m) and not spared.ended()
    m.kill()
    assert m.wait_exit() == 0
    assert spared.ended()


def test_reload_ends_what_the_old_have_started(ready, tmp_path):
    m = begin(ready, tmp_path, SHORT.replace("300ms", "1min"))  # both may be one's, and the other one late, with the last client
    left = [grandchild(m, command) for command in FORKS]
    m.kill(signal.SIGHUP)
    assert "generation 2" in m.wait_ready()
    for p in left:
        p.wait_end()
    assert m.get().status == 200


def test_start_that_fails(start, tmp_path):
    """A first start that fails leaves nothing of the workers that were well."""
    at = gate(tmp_path)
    m = begin(start, tmp_path, SHORT, f"fork gate={at} exit=3@worker=2")
    assert m.wait_exit() == 1
    left = processes_with(m)
    assert not left, left


def worker_in_slot(m, n, generation=1):
    """Once it is executed, and has its environment."""
    identity = {"MUSTER_WORKER": str(n), "MUSTER_GENERATION": str(generation)}

    def found():
        return [w for w in m.worker_processes() if identity.items() <= w.environment().items()]

    return m.wait_until(found, f"worker {n}")[-1]


def test_reload_that_fails_has_taken_clients(ready, tmp_path):
    """The same with a generation that does not come to serve."""
    m = begin(ready, tmp_path, 'workers: { count = 2; start_timeout = "1h"; stop_timeout = "1h"; };')
    m.life.set_mode("serves-first@worker=2")
    m.kill(signal.SIGHUP)
    first, second = (worker_in_slot(m, n, generation=2) for n in (1, 2))
    with connected(m, second.pid) as client:
        client.send(b"GET /whoami HTTP/1.1\r\nHost: x\r\n")
        first.kill(signal.SIGKILL)
        assert "generation 1; reload failed" in m.wait_ready()
        client.send(b"\r\n")
        assert b'"generation":2' in client.answer().body and client.at_end()
    second.wait_end()
    assert m.get().status == 200


def test_start_that_fails_has_taken_clients(start, tmp_path):
    """A worker may serve before it says so; that another one fails is no reason to drop its clients."""
    m = begin(start, tmp_path, 'workers: { count = 2; start_timeout = "1h"; stop_timeout = "1h"; };',
              "never-ready@worker=1 serves-first@worker=2")
    m.wait_until(lambda: len(m.worker_processes()) == 2, "two workers")
    client = m.connect()
    client.send(b"GET /whoami HTTP/1.1\r\nHost: x\r\n")
    m.wait_connections(1)
    worker_in_slot(m, 1).kill(signal.SIGKILL)
    m.wait_until(lambda: "cannot start" in m.stderr(), "the start has failed")
    client.send(b"\r\n")
    assert b'"worker":2' in client.answer().body and client.at_end()
    assert m.wait_exit() == 1


def processes_with(m):
    """Those that have this test's directory in their environment: workers and all that they have started."""
    found = {}
    mark = f"MUSTER_LIBEXECDIR={m.life.libexec}".encode()
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != m.pid:
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes()
    return found


# The master's own death


def wait_nothing_left(m, processes, timeout=DEADLINE):
    end = time.monotonic() + timeout
    for p in processes:
        p.master = None
        p.wait_end(max(end - time.monotonic(), 0))
    left = processes_with(m)
    assert not left, left


@pytest.mark.parametrize("mode", ["", "never-ready", "slow-ready=3600000", "notify", "channel", "watchdog"])
def test_master_killed(start, tmp_path, mode):
    """SIGKILL of the master: whatever its workers are at, they go."""
    m = begin(start, tmp_path, SHORT, mode)
    if "ready" in mode:
        m.wait_status("Starting: 0/2 workers ready")
    else:
        m.wait_ready()
    workers = m.worker_processes()
    assert len(workers) == 2
    m.kill(signal.SIGKILL)
    assert m.wait_exit() == -signal.SIGKILL
    wait_nothing_left(m, workers)


@pytest.mark.parametrize("command", ["/stubborn", "/close-channel", "/stubborn?abort=1"])
def test_master_killed_and_workers_that_go_wrong(ready, tmp_path, command):
    """Who does not hear SIGTERM hears that its channel is closed, and the other way round."""
    m = begin(ready, tmp_path, SHORT)
    workers = m.worker_processes()
    for w in workers:
        with connected(m, w.pid) as client:
            assert client.request(command).status == 200
    m.kill(signal.SIGKILL)
    assert m.wait_exit() == -signal.SIGKILL
    wait_nothing_left(m, workers)


def test_master_killed_in_a_reload(ready, tmp_path):
    """Both generations go."""
    m = begin(ready, tmp_path, SHORT)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}@generation=2")
    m.kill(signal.SIGHUP)
    with open(at, "w"):
        workers = m.worker_processes()
        assert len(workers) == 3
        m.kill(signal.SIGKILL)
        assert m.wait_exit() == -signal.SIGKILL
    wait_nothing_left(m, workers)


def guard_of(m):
    def named():
        return [Process(pid) for pid in m.children() if pathlib.Path(f"/proc/{pid}/comm").read_text() == "muster-guard\n"]

    (guard,) = m.wait_until(named, "the guard has let go of everything, and taken its name")
    return guard


def test_master_killed_and_what_hears_nothing(start, tmp_path):
    """Without a service manager a guard ends workers that hang, are dead-locked or stopped, and what workers have started."""
    m = begin(start, tmp_path, SHORT.replace("count = 2", "count = 5"), notify=False)
    m.wait_until(lambda: "Serving web" in m.stderr(), "readiness")
    left = [guard_of(m), *(grandchild(m, command) for command in FORKS)]
    workers = m.worker_processes()
    try:
        for w, command in zip(workers, ("/hang", "/deadlock", "/signal?n=19", "/")):
            with connected(m, w.pid) as client:
                assert client.request(command).status == 200
        m.kill(signal.SIGKILL)
        assert m.wait_exit() == -signal.SIGKILL
        wait_nothing_left(m, workers + left)
    finally:
        for p in workers + left:
            p.kill(signal.SIGKILL)


def test_guard_keeps_nothing(start):
    """It has no socket, stream or directory of the master's, is no target of ^C, and goes with the master."""
    m = start(notify=False)
    m.wait_until(lambda: "Serving web" in m.stderr(), "readiness")
    guard = guard_of(m)
    fds = guard.fds()
    assert "pidfd" in fds.pop(3)
    assert set(fds.values()) == {"/dev/null"} and len(fds) == 3
    assert os.getsid(guard.pid) == guard.pid
    guard.kill(signal.SIGTERM)
    guard.kill(signal.SIGINT)
    assert m.get().status == 200 and not guard.ended()
    m.kill()
    assert m.wait_exit() == 0
    guard.wait_end()
