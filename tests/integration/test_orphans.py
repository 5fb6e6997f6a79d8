# SPDX-License-Identifier: MIT
"""When the master is gone the workers go too, and what a worker leaves behind goes with the worker."""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import struct

import pytest

import harness
from harness import Process, unix, wait_readable
from worker_harness import DEADLINE

PTRACE_SEIZE = 0x4206


def test_sigkill(ready):
    """They hear of it by PR_SET_PDEATHSIG and end like on a stop."""
    m = ready()
    workers = m.worker_processes()
    m.kill(signal.SIGKILL)
    assert m.wait_exit() == -signal.SIGKILL
    for worker in workers:
        worker.wait_end()


def test_open_request_is_finished(ready):
    """They answer what is open before they go."""
    m = ready(workers=1)
    (worker,) = m.worker_processes()
    client = m.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    m.wait_connections(1)
    m.kill(signal.SIGKILL)
    m.wait_exit()
    client.send(b"\r\n")
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"hello\n")
    worker.wait_end()


def test_not_longer_than_five_seconds(ready):
    """Without a master there is nobody with a stop_timeout: a client that never ends its request holds them for 5 s."""
    m = ready('workers: { count = 1; stop_timeout = "1h"; };\nhttp: { request_timeout = "1h"; };')
    (worker,) = m.worker_processes()
    client = m.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    m.wait_connections(1)
    m.kill(signal.SIGKILL)
    m.wait_exit()
    worker.wait_end()


def test_sigkill_while_starting(start):
    """A worker that has not got ready goes as well."""
    m = start(worker="wait_for_ever()\n")
    m.wait_status("Starting: 0/2 workers ready")
    workers = m.worker_processes()
    assert len(workers) == 2
    m.kill(signal.SIGKILL)
    m.wait_exit()
    for worker in workers:
        worker.wait_end()


# What workers leave behind. Every process that one of these starts connects to the test first and says what it is.

LEAVE = """
import socket

def tell(role):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.environ["BIRTHS"])
    sock.sendall(role.encode() + b"\\n")
    return sock

def background(role, then=wait_for_ever):
    pid = os.fork()
    if pid == 0:
        held = tell(role)
        then()
        os._exit(0)
    return pid

def daemon(role, then=wait_for_ever, parent=lambda: None):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        background(role, then)
        parent()
        os._exit(0)
    os.waitpid(pid, 0)

def chain(n):
    if n > 1:
        background(f"chain {n - 1}", lambda: (os.setsid(), chain(n - 1)))
    wait_for_ever()

def told():
    tell("parent").recv(1)

def bare():
    os.execve("/bin/sleep", ["sleep", "1000"], {})

def serve():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    set_state(READY)
    wait_for_ever()
"""

KINDS = {
    "group": ('background("left")', ["left"]),
    "group-without-parent": ('os.waitpid(background("gone", lambda: background("left")), 0)', ["left"]),
    "daemon": ('daemon("left")', ["left"]),
    "chain": ('daemon("chain 5", lambda: chain(5))', [f"chain {n}" for n in range(5, 0, -1)]),
    "grandchildren": ('daemon("left", lambda: (background("its child"), wait_for_ever()))', ["left", "its child"]),
    "stopped": ('daemon("left")', ["left"]),
    "deaf": ('for s in range(1, 65): s in (9, 17, 19, 32, 33) or signal.signal(s, signal.SIG_IGN)\n    daemon("left")', ["left"]),
    "without-environment": ('daemon("left", bare, told)', ["left"]),  # an orphan no earlier than the test says
    "group-without-environment": ('os.waitpid(background("gone", lambda: background("left", bare)), 0)', ["left"]),
}


class Births:
    """Who was born; a process keeps its connection as long as it executes nothing else."""

    def __init__(self, path):
        self.path = str(path)
        self.listener = unix(path)
        self.born = []
        self.unasked = []
        self.master = None  # to listen to while one of them is waited for

    def environment(self):
        return {"BIRTHS": self.path}

    def wait(self, role):
        """The first process of that role that was not asked for yet, which is to be alive."""
        for i, (its_role, pid, sock) in enumerate(self.unasked):
            if its_role == role:
                del self.unasked[i]
                return self.add(pid, sock)
        while True:
            wait_readable([self.listener], f"the birth of {role}")
            sock, _ = self.listener.accept()
            sock.settimeout(DEADLINE)
            pid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            its_role = sock.makefile().readline().strip()
            if its_role == role:
                return self.add(pid, sock)
            self.unasked.append((its_role, pid, sock))

    def add(self, pid, sock=None):
        process = Process(pid, self.master)
        process.sock = sock or socket.socket(socket.AF_UNIX)
        self.born.append(process)
        return process

    def wait_executed(self, process):
        assert process.sock.recv(1) == b""

    def close(self):
        self.listener.close()
        for process in self.born:
            process.kill(signal.SIGKILL)
            process.sock.close()
        for _, _, sock in self.unasked:
            sock.close()


@pytest.fixture
def births(tmp_path):
    with contextlib.closing(Births(tmp_path / "births")) as b:
        yield b


def zombies(m):
    found = []
    for task in pathlib.Path(f"/proc/{m.pid}/task").iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                    found.append(int(pid))
    return found


def wait_reaped(m):
    """There is no event for it, so it looks again and again."""
    m.wait_until(lambda: not zombies(m), "the end of zombies")


def wait_replaced(m, n=2):
    m.wait_status(lambda s: not s.startswith(f"{n}/{n}"))
    m.wait_status(f"{n}/{n} workers ready, 0 connections, generation 1")


def leaving(what):
    """A worker in slot 1 that leaves something behind; its successor and the one in slot 2 are real ones."""
    return (
        f"{LEAVE}\nif SLOT == 1 and not os.path.exists(os.environ['BIRTHS'] + '.done'):\n"
        f"    held = tell('worker')\n    {what}\n    open(os.environ['BIRTHS'] + '.done', 'w')\n    serve()\nreal(REAL)\n"
    )


def start_leaving(start, births, kind, **kwargs):
    what, roles = KINDS[kind]
    m = births.master = start(worker=leaving(what), environment=births.environment(), **kwargs)
    worker = births.wait("worker")
    left = [births.wait(role) for role in roles]
    if "without-environment" in kind:
        births.wait_executed(left[0])
    if kind == "without-environment":  # from now on it is nobody's, and may be ended at once
        births.wait("parent").sock.sendall(b".")
    if kind == "stopped":
        left[0].kill(signal.SIGSTOP)
    m.wait_ready()
    return m, worker, left


def worker_of_slot(m, slot):
    (found,) = [w for w in m.worker_processes() if w.environment().get("MUSTER_WORKER") == str(slot)]
    return found


@pytest.mark.parametrize("end", ["exits", "killed"])
@pytest.mark.parametrize("kind", KINDS)
def test_leftovers_end_with_their_worker(start, births, kind, end):
    """However the worker ends, what it left behind is killed and reaped; the other worker is not touched."""
    m, worker, left = start_leaving(start, births, kind)
    other = worker_of_slot(m, 2)
    worker.kill(signal.SIGTERM if end == "exits" else signal.SIGKILL)
    wait_replaced(m)
    for process in left:
        process.wait_end()
    wait_reaped(m)
    assert not other.ended()
    assert len(m.children()) == 2
    assert m.get().status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_leftovers_end_with_the_service(start, births, kind):
    """When the master is gone nothing is left, though systemd killed nobody."""
    m, worker, left = start_leaving(start, births, kind)
    m.kill(signal.SIGTERM)
    assert m.wait_exit() == 0
    assert worker.ended()
    assert all(process.ended() for process in left)
    for process in left:
        assert not pathlib.Path(f"/proc/{process.pid}").exists()


@pytest.mark.parametrize("how", ["background", "daemon"])
def test_told_in_the_log(ready, births, how):
    """Who left what, by its name made printable."""
    name = 'open("/proc/self/comm", "w").write("my\\033d")'
    m = ready(worker=leaving(f"{how}('left', lambda: ({name}, tell('named'), wait_for_ever()))"), environment=births.environment())
    worker, left = births.wait("worker"), births.wait("named")
    worker.kill(signal.SIGKILL)
    left.wait_end()
    wait_replaced(m)
    assert m.stderr().count(f"Worker 1 left process {left.pid} (my?d) behind; killed.") == 1
    assert m.stderr().count("behind") == 1


@pytest.mark.parametrize("kind", ["daemon", "group-without-parent", "group-without-environment"])
def test_helper_of_a_living_worker(start, births, kind):
    """It lives on when another worker dies, through a reload's beginning and ticks, and is reaped when it ends by itself."""
    m, worker, (helper,) = start_leaving(start, births, kind, watchdog_usec=200_000)
    other = worker_of_slot(m, 2)
    for _ in range(2):
        other.kill(signal.SIGKILL)
        wait_replaced(m)
        other = worker_of_slot(m, 2)
        m.wait_message("WATCHDOG=1")
    m.write_config("nonsense")
    m.kill(signal.SIGHUP)
    m.wait_status(lambda s: "reload failed" in s)
    assert not helper.ended() and not worker.ended()
    assert helper.pid in m.children()
    helper.kill(signal.SIGKILL)
    helper.wait_end()
    wait_reaped(m)
    assert not worker.ended()
    assert "behind" not in m.stderr()


def test_nobodys_daemon_ends_before_the_workers(start, births):
    """One that took the worker's name out of its environment cannot be told from a leftover: the next tick's looks end it."""
    m, worker, (left,) = start_leaving(start, births, "without-environment", watchdog_usec=200_000)
    left.wait_end()
    wait_reaped(m)
    assert f"Process {left.pid} (sleep) was left behind and is no worker's; killed." in m.stderr()
    assert not worker.ended()


def test_nobodys_daemon_ends_without_ticks(start, births):
    """When a worker has ended there is a second look soon: it does not wait for the tick, which is minutes away."""
    m, worker, (left,) = start_leaving(start, births, "without-environment", watchdog_usec=600_000_000)
    worker.kill(signal.SIGKILL)
    left.wait_end()
    wait_reaped(m)
    assert "is no worker's; killed." in m.stderr()


def test_daemon_of_the_successor(ready, births):
    """It has the same slot and generation as the dead worker's, and is not taken for it."""
    m = ready(
        'workers: { count = 1; };\nrestart: { backoff_min = "1ms"; backoff_max = "1ms"; };', environment=births.environment(),
        worker=f"{LEAVE}\nheld = tell('worker')\ndaemon('left')\nserve()")
    worker, left = births.wait("worker"), births.wait("left")
    for _ in range(5):
        worker.kill(signal.SIGKILL)
        successor, new = births.wait("worker"), births.wait("left")
        left.wait_end()
        m.wait_status("1/1 workers ready, 0 connections, generation 1")
        wait_reaped(m)
        assert not new.ended() and not successor.ended()
        worker, left = successor, new


def test_reload(ready, births):
    """The old generation's leftovers go with it, the new one's stay."""
    m = ready(worker=f"{LEAVE}\nheld = tell('worker')\ndaemon('left')\nserve()", environment=births.environment())
    old = [births.wait("left") for _ in range(2)]
    m.kill(signal.SIGHUP)
    new = [births.wait("left") for _ in range(2)]
    m.wait_status("2/2 workers ready, 0 connections, generation 2")
    for process in old:
        process.wait_end()
    wait_reaped(m)
    assert not any(process.ended() for process in new)
    m.kill(signal.SIGTERM)
    assert m.wait_exit() == 0
    assert all(process.ended() for process in new)


def test_first_start_that_fails(start, births):
    """What a worker that never got ready has left does not outlive the master either."""
    m = start(worker=f"{LEAVE}\ndaemon('left')\ntell('worker').recv(1)\nos._exit(3)", workers=1, environment=births.environment())
    left, worker = births.wait("left"), births.wait("worker")
    worker.sock.sendall(b".")
    assert m.wait_exit() == 1
    assert left.ended()


def test_many(ready, births):
    """Hundreds are ended and reaped, and the log stays short."""
    m = ready(worker=leaving("for n in range(300): daemon('left')"), environment=births.environment())
    worker = births.wait("worker")
    left = [births.wait("left") for _ in range(300)]
    worker.kill(signal.SIGKILL)
    wait_replaced(m)
    for process in left:
        process.wait_end()
    wait_reaped(m)
    assert m.stderr().count(" behind; killed.") == 10
    assert m.stderr().count("Workers leave many processes behind; no more is said of them within 10s.") == 1


def test_short_lived_orphans_are_reaped(ready, births):
    """A worker whose helpers come and go, all without a parent: no zombie stays, and the helper that lives is not touched."""
    m = ready(
        worker=leaving("daemon('left')\n    for n in range(200): daemon('short', lambda: None)\n    daemon('last')"),
        environment=births.environment())
    births.wait("worker")
    left, last = births.wait("left"), births.wait("last")
    last.kill(signal.SIGKILL)
    last.wait_end()
    wait_reaped(m)
    assert not left.ended()
    m.wait_until(lambda: len(m.children()) == 3, "the end of the short-lived ones")


def test_stop_does_not_wait_for_ever(start, births):
    """A leftover that is traced is not the master's to reap; like one that hangs in the kernel it is given up in the end."""
    m, _, (left,) = start_leaving(start, births, "daemon")
    if ctypes.CDLL(None).ptrace(PTRACE_SEIZE, left.pid, None, None) < 0:
        pytest.skip("no right to trace")
    try:
        m.kill(signal.SIGTERM)
        assert m.wait_exit() == 0
        assert "1 process that workers left behind did not end." in m.stderr()
        left.wait_end()
    finally:
        os.waitpid(left.pid, 0)


@pytest.fixture
def stranger(births, monkeypatch, tmp_path):
    """A function that tells the process that a shell had started before it became the master."""
    wrapper, told = tmp_path / "wrapper", tmp_path / "pid"
    wrapper.write_text(f'#!/bin/sh\nsleep 1000 &\necho $! >{told}\nexec {harness.MUSTERD} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(harness, "MUSTERD", wrapper)
    return lambda: births.add(int(told.read_text()))


def test_stranger_lives_on(start, births, stranger):
    """A process that the master had before its first worker is nobody's leftover: not touched, and reaped when it ends."""
    m, worker, (left,) = start_leaving(start, births, "daemon", watchdog_usec=200_000)
    process = stranger()
    worker.kill(signal.SIGKILL)
    wait_replaced(m)
    left.wait_end()
    for _ in range(3):
        m.wait_message("WATCHDOG=1")
    assert not process.ended()
    process.kill(signal.SIGKILL)
    process.wait_end()
    wait_reaped(m)


def test_group_is_killed_as_one(ready, births, stranger):
    """Where a process that names nobody may be a stranger, one in the worker's group is a leftover all the same."""
    what = 'background("parent", lambda: (background("left", bare), wait_for_ever()))'
    m = ready(worker=leaving(what), environment=births.environment())
    worker, left = births.wait("worker"), births.wait("left")
    births.wait_executed(left)
    worker.kill(signal.SIGKILL)
    left.wait_end()
    wait_replaced(m)
    wait_reaped(m)


def test_executing_is_not_nameless(ready, births):
    """While a daemon executes a program it has no environment for a moment, at which it is looked at here time and again."""
    m = ready(
        worker=leaving(
            "true = lambda: os.execv('/bin/true', ['true'])\n"
            "    for n in range(300): daemon('short', true)\n    daemon('last')"),
        environment=births.environment())
    last = births.wait("last")
    last.kill(signal.SIGKILL)
    last.wait_end()
    wait_reaped(m)
    assert "behind" not in m.stderr()


def test_stranger_outlives_the_service(start, births, stranger):
    """The stop does not wait for it either."""
    m, _, (left,) = start_leaving(start, births, "daemon")
    process = stranger()
    m.kill(signal.SIGTERM)
    assert m.wait_exit() == 0
    assert left.ended() and not process.ended()
    assert "did not end" not in m.stderr()


def test_asleep_with_orphans(start, births):
    """A helper costs no wake-up."""
    m, _, (helper,) = start_leaving(start, births, "daemon", watchdog_usec=400_000)
    for _ in range(3):
        m.wait_message("WATCHDOG=1")

    def ticks():
        m._receive()
        return sum("WATCHDOG=1" in text for _, text in m.messages)

    n, before = ticks(), m.process.switches()
    for _ in range(10):
        m.wait_message("WATCHDOG=1")
    switches = m.process.switches() - before
    assert switches <= ticks() - n + 1  # of the last one the message may be on its way
    assert not helper.ended()
