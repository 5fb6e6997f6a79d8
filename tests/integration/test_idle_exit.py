# SPDX-License-Identifier: MIT
"""idle_exit: without connections the service ends, and the next connection starts it again. The test is systemd."""

import contextlib
import os
import pathlib
import random
import select
import signal
import socket
import threading
import time

import pytest
from harness import Master, tcp, unix, wait_readable
from lifecycle import Lifecycle, elapse
from node_app import APPS, NODE, node_app
from worker_harness import DEADLINE, Client

PROGRAMS = pathlib.Path(__file__).parent / "programs"

# Only the native worker counts its connections itself.
APPS_OF_KINDS = {
    "static": None,
    "program": f'kind = "program"; command = [ "/usr/bin/python3", "{PROGRAMS / "listen.py"}" ];',
    "node": node_app(NODE, APPS / "plain.js"),
}


def idle(text, count=2, soak="1ms"):
    return f'workers: {{ count = {count}; start_timeout = "1min"; soak = "{soak}"; }};\nidle_exit = "{text}";\n'


@pytest.fixture(params=APPS_OF_KINDS)
def kind(request):
    if request.param == "node" and not os.path.exists(NODE):
        pytest.skip(f"no {NODE}")
    return request.param


def skip_if_not_counted(m):
    """Without the means of the kernel the service stays, which others test."""
    if "idle_exit is ignored" in m.stderr():
        pytest.skip(m.stderr())


def ready_with_client(ready, config, sock=None, app=None):
    """A service that has had a client from its beginning, so that it does not leave before the test comes to the point."""
    sock = sock or tcp()
    client = socket.socket(sock.family)
    client.settimeout(DEADLINE)
    client.connect(sock.getsockname())
    return ready(config, sockets=[("http", sock)], app=app), Client(client)


def test_leaves(ready):
    """After that time, and not before; with success, children first."""
    began = time.monotonic()
    m = ready(idle("600ms"))
    workers = m.worker_processes()
    assert m.wait_message("STOPPING=1") == "STOPPING=1\nSTATUS=Stopping: 2 workers finish 0 connections"
    assert time.monotonic() - began >= 0.6
    assert m.wait_exit() == 0
    assert all(w.ended() for w in workers)
    assert "No connection for 600ms: ending, until the next one starts the service again." in m.stderr()
    assert "killed" not in m.stderr()


def test_without_notify_socket(start):
    """Nobody has to listen for that."""
    m = start(idle("200ms"), notify=False)
    assert m.wait_exit() == 0


def test_every_connection_counts(ready, kind):
    """The time begins anew with each, however short it was, and whoever has accepted it."""
    m = ready(idle("4s"), app=APPS_OF_KINDS[kind])
    for _ in range(3):
        last = time.monotonic()
        assert m.get().status == 200
        elapse(m, 1.5)
    skip_if_not_counted(m)
    assert m.wait_exit() == 0
    assert time.monotonic() - last >= 4


OPEN = [(kind, state) for kind in APPS_OF_KINDS for state in ("kept", "silent", "half a request")]
OPEN.remove(("program", "kept"))  # that one hangs up


@pytest.mark.parametrize("kind, state", OPEN, indirect=["kind"])
def test_open_connection(ready, kind, state):
    """An open connection is one, also when nothing is asked by it."""
    m, client = ready_with_client(ready, idle("200ms"), app=APPS_OF_KINDS[kind])
    if state == "kept":
        assert client.request("/").status == 200
    elif state == "half a request":
        client.send(b"GET / HTTP/1.1\r\n")
    if kind == "static":
        m.wait_connections(1)
    elapse(m, 1)
    assert "No connection" not in m.stderr()
    skip_if_not_counted(m)
    client.close()
    assert m.wait_exit() == 0


def test_unix_socket(ready, tmp_path, kind):
    """Whatever the socket is."""
    m, client = ready_with_client(ready, idle("200ms"), unix(tmp_path / "sock"), APPS_OF_KINDS[kind])
    with contextlib.closing(client):
        client.send(b"GET / HTTP/1.1\r\n")
        elapse(m, 0.6)
        assert "No connection" not in m.stderr()
        client.send(b"Host: x\r\n\r\n")
        assert client.answer().status == 200
    skip_if_not_counted(m)
    assert m.wait_exit() == 0


def test_connection_in_the_queue(ready):
    """Nobody has accepted it yet, but it is there: the master does not leave."""
    m = ready(idle("3s"))
    workers = [m.serving(w) for w in m.worker_processes()]
    for w in workers:
        w.kill(signal.SIGSTOP)
    client = m.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    elapse(m, 5)
    assert "No connection" not in m.stderr()
    for w in workers:
        w.kill(signal.SIGCONT)
    assert client.answer().status == 200
    client.close()
    assert m.wait_exit() == 0


def test_worker_that_is_killed(ready):
    """What it had open was closed with it, and is not waited for."""
    m, client = ready_with_client(ready, idle("300ms", count=1))
    assert client.request("/").status == 200
    m.worker_processes()[0].kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("0/1"))
    client.close()
    assert m.wait_exit() == 0


def test_not_in_a_reload(ready):
    """A new generation on its trial keeps it: systemd waits for the end of the reload."""
    m, client = ready_with_client(ready, idle("200ms", count=1, soak="1500ms"))
    m.kill(signal.SIGHUP)
    m.wait_message(lambda lines: "RELOADING=1" in lines)
    client.close()
    m.wait_ready()
    m.wait_message("STOPPING=1")
    assert m.wait_exit() == 0
    assert m.stderr().index("Generation 2 serves") < m.stderr().index("No connection")


def test_switched_on_and_off(ready):
    """By a reload."""
    m = ready(workers=1)
    m.write_config(idle("3s", count=1))
    m.kill(signal.SIGHUP)
    assert "generation 2" in m.wait_ready()
    m.write_config(idle("0", count=1))
    m.kill(signal.SIGHUP)
    assert "generation 3" in m.wait_ready()
    elapse(m, 5)
    m.write_config(idle("100ms", count=1))
    m.kill(signal.SIGHUP)
    assert m.wait_exit() == 0


class Systemd:
    """Keeps the socket, and starts the service whenever something comes."""

    def __init__(self, config, **kwargs):
        self.sock = tcp()
        self.config = config
        self.kwargs = kwargs
        self.cycles = 0

    def connect(self):
        return Client(socket.create_connection(self.sock.getsockname(), timeout=DEADLINE))

    def run_once(self):
        """One life of the service."""
        wait_readable([self.sock], "a connection")
        m = Master(self.config, sockets=[("http", self.sock.dup())], **self.kwargs)
        try:
            end = time.monotonic() + DEADLINE
            while not m.process.ended():
                assert time.monotonic() < end, f"it does not leave: {m.stderr()}"
                select.select([m.pidfd, m.notify_socket], [], [], 1)
                m.statuses()
            code = m.wait_exit()
            assert code == 0 and "No connection" in m.stderr(), f"{code}: {m.stderr()}"
        finally:
            m.close()
        self.cycles += 1


CYCLES = 50


@pytest.mark.parametrize("kind", ["real", "fixture"])
def test_leaving_and_returning(tmp_path, kind):
    """Clients come just when the service leaves, again and again: not one is refused, reset or forgotten."""
    kwargs = {}
    if kind == "fixture":
        kwargs["environment"] = Lifecycle(tmp_path).environment
    s = Systemd(idle("20ms", count=2), **kwargs)
    stop = threading.Event()
    failures, answers = [], [0]

    def ask(seed):
        rng = random.Random(seed)
        while not stop.is_set() and not failures:
            try:
                with contextlib.closing(s.connect()) as client:
                    for i in range(rng.choice((1, 1, 3))):
                        try:
                            answer = client.request("/")
                        except (EOFError, ConnectionError):
                            # A worker that goes keeps an idle connection for a second; longer, if this thread did not get to run.
                            if i > 0 and not client.buffer and time.monotonic() - answered > 0.9:
                                break
                            raise
                        answered = time.monotonic()
                        assert answer.status == 200
                        answers[0] += 1
                        if answer.closes:
                            break
            except Exception as e:
                failures.append(repr(e))
            # around the time at which it leaves
            stop.wait(rng.uniform(0.015, 0.06))

    thread = threading.Thread(target=ask, args=(os.getpid(),))
    thread.start()
    try:
        while s.cycles < CYCLES and not failures:
            s.run_once()
    finally:
        stop.set()
        # the last client may still wait for a service
        while thread.is_alive():
            if select.select([s.sock], [], [], 0.01)[0]:
                s.run_once()
        thread.join()
        s.sock.close()
    assert not failures, failures
    assert answers[0] >= CYCLES
