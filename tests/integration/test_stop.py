# SPDX-License-Identifier: MIT
"""Stopping: what is open is finished, children go first, and nobody waits for ever."""

import signal

import pytest


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT])
def test_idle(ready, signo):
    """With nothing open it ends at once, with 0, and the workers are gone before the master."""
    m = ready()
    workers = m.worker_processes()
    m.kill(signo)
    assert m.wait_exit() == 0
    assert all(w.ended() for w in workers)
    assert m.stderr().count("exited with status 0.") == 2


def test_request_in_flight_is_finished(ready):
    """A request whose last bytes come after SIGTERM is answered; the master waits for it."""
    m = ready()
    client = m.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    m.wait_connections(1)
    m.kill()
    m.wait_message("STOPPING=1")
    assert not m.process.ended()
    client.send(b"\r\n")
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"hello\n")
    assert client.at_end()
    assert m.wait_exit() == 0


def test_keepalive_connections_are_closed(ready):
    """An idle connection does not hold the service back."""
    m = ready()
    client = m.connect()
    assert client.request("/").status == 200
    m.kill()
    assert client.at_end()
    assert m.wait_exit() == 0


def test_stop_timeout(ready):
    """A worker that is stopped cannot finish: it is killed after stop_timeout, in words, and the master ends with 0."""
    m = ready('workers: { count = 2; stop_timeout = "300ms"; };')
    workers = m.worker_processes()
    workers[0].kill(signal.SIGSTOP)
    m.kill()
    m.wait_status("Stopping: 1 workers finish 0 connections")
    assert m.wait_exit() == 0
    assert all(w.ended() for w in workers)
    assert f"(pid {workers[0].pid}) did not finish within 300ms, killing it." in m.stderr()
    assert f"(pid {workers[0].pid}) was killed: not finished within 300ms." in m.stderr()


def test_second_interrupt_kills(ready):
    """^C twice: somebody is in a hurry. SIGTERM twice is no hurry."""
    m = ready('workers: { count = 1; stop_timeout = "1h"; };')
    (worker,) = m.worker_processes()
    worker.kill(signal.SIGSTOP)
    m.kill(signal.SIGINT)
    m.wait_message("STOPPING=1")
    m.kill(signal.SIGTERM)
    m.kill(signal.SIGINT)
    assert m.wait_exit() == 0
    assert worker.ended()
    assert "was killed: not needed any more." in m.stderr()


def test_stop_while_starting(start):
    """A stop that comes before the workers are ready ends them and is no failure."""
    m = start(worker="wait_for_ever()\n")
    m.wait_status("Starting: 0/2 workers ready")
    m.kill()
    m.wait_message("STOPPING=1")
    assert m.wait_exit() == 0
    assert not any("READY=1" in text.split("\n") for _, text in m.messages)


def test_stop_at_the_very_start(start):
    """SIGTERM right after the exec: whenever it comes, nobody is left behind."""
    for i in range(20):
        m = start(workers=2)
        # after the first sign of life at the latest; each round a bit later
        for _ in range(i % 4):
            m.wait_message(lambda lines: True)
        m.kill()
        assert m.wait_exit() in (0, -signal.SIGTERM)
        assert m.children() == []


def test_stop_in_back_off(ready):
    """Nothing is started any more, the pause before the next attempt is forgotten."""
    m = ready('workers: { count = 1; };\nrestart: { backoff_min = "1h"; backoff_max = "1h"; };')
    for death in range(2):
        m.worker().kill(signal.SIGKILL)
        m.wait_status(lambda s: "SIGKILL" in s)
        if death == 0:
            m.wait_status("1/1 workers ready, 0 connections, generation 1")
    m.kill()
    assert m.wait_exit() == 0


def test_crash_while_stopping(ready):
    """A worker that dies meanwhile is not replaced."""
    m = ready('workers: { count = 2; stop_timeout = "1h"; };')
    workers = m.worker_processes()
    for w in workers:
        w.kill(signal.SIGSTOP)
    m.kill()
    m.wait_message("STOPPING=1")
    workers[0].kill(signal.SIGKILL)
    m.wait_status("Stopping: 1 workers finish 0 connections")
    m.wait_until(lambda: m.children() == [workers[1].pid], "the end of its processes")
    workers[1].kill(signal.SIGCONT)
    assert m.wait_exit() == 0


def test_reload_while_stopping(ready):
    """SIGHUP does not bring a stopping service back."""
    m = ready('workers: { count = 1; stop_timeout = "1h"; };')
    (worker,) = m.worker_processes()
    worker.kill(signal.SIGSTOP)
    m.kill()
    m.wait_message("STOPPING=1")
    m.kill(signal.SIGHUP)
    worker.kill(signal.SIGCONT)
    assert m.wait_exit() == 0
    assert not any("RELOADING=1" in text for _, text in m.messages)
