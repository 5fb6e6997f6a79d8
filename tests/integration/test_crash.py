# SPDX-License-Identifier: MIT
"""A worker that dies, of whatever, is replaced; one that keeps dying is replaced with a pause."""

import os
import signal

import pytest


def wait_replaced(m, n=1):
    m.wait_status(f"{n}/{n} workers ready, 0 connections, generation 1")


@pytest.mark.parametrize(
    "signo",
    [s for s in signal.valid_signals() if s not in (
        # ignored by default, or a stop, or a request to finish
        signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN,
        signal.SIGTTOU, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)
        and s <= signal.SIGSYS],
    ids=lambda s: s.name,
)
def test_every_signal(ready, signo):
    """Replaced at once, the other one serves meanwhile, STATUS tells why and forgets it when all is well."""
    m = ready('workers: { count = 2; twin = false; };\nrestart: { backoff_min = "1h"; backoff_max = "1h"; };')
    victim, other = m.worker_processes()
    victim.kill(signo)
    m.wait_status(lambda s: s.startswith("1/2 workers ready, 0 connections, generation 1; worker ")
                  and f" was killed by signal {int(signo)}, SIG" in s)
    wait_replaced(m, 2)
    assert victim.ended() and not other.ended()
    assert len(m.children()) == 2 and victim.pid not in m.children() and other.pid in m.children()
    assert m.get().status == 200
    assert f"(pid {victim.pid}) was killed by signal {int(signo)}, SIG" in m.stderr()


def test_replaced_at_once(ready):
    """The first death waits for nothing: the next worker is there when the death is told."""
    m = ready('workers: { count = 1; };\nrestart: { backoff_min = "1h"; backoff_max = "1h"; };')
    (worker,) = m.worker_processes()
    worker.kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("0/1"))
    successor = m.worker()  # and not after a pause of an hour, or a tick
    assert successor.pid != worker.pid
    wait_replaced(m)
    assert "trying again in" not in m.stderr()


def test_back_off(ready):
    """Early deaths in a row: at once, then with a pause that doubles up to the most, which STATUS and the log tell."""
    m = ready('workers: { count = 1; };\nrestart: { backoff_min = "20ms"; backoff_max = "50ms"; };')
    for _ in range(5):
        m.worker().kill(signal.SIGKILL)
        m.wait_status("0/1 workers ready, 0 connections, generation 1; worker 1 was killed by signal 9, SIGKILL")
        wait_replaced(m)
    pauses = [line.split("trying again in ")[1] for line in m.stderr().splitlines() if "trying again in" in line]
    assert pauses == ["20ms.", "40ms.", "50ms.", "50ms."]
    assert "Worker 1 died early 2 times in a row, trying again in 20ms." in m.stderr()


def test_clients_wait(ready):
    """Without a worker a client's connection waits in the socket's queue, and is served by the next one."""
    m = ready('workers: { count = 1; };\nrestart: { backoff_min = "5s"; backoff_max = "5s"; };')
    for death in range(2):
        m.worker().kill(signal.SIGKILL)
        m.wait_status(lambda s: s.startswith("0/1"))
        if death == 0:
            wait_replaced(m)
    client = m.connect()  # nobody is there
    m.wait_until(lambda: m.children() == [], "what the dead one has left is gone")
    assert client.request("/").status == 200
    client.close()


def test_asked_to_go_from_outside(ready):
    """SIGTERM to a worker: it finishes what it has, and its successor is ready before it is gone."""
    m = ready(workers=1)
    (old,) = m.worker_processes()
    client = m.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    m.wait_connections(1)
    old.kill(signal.SIGTERM)
    m.wait_status(lambda s: s.startswith("0/1 workers ready, 1 connections"))
    m.wait_status(lambda s: s.startswith("1/1 workers ready, 1 connections"))
    assert not old.ended() and len(m.children()) == 2
    assert m.whoami()["pid"] != old.pid
    client.send(b"\r\n")
    assert client.answer().status == 200
    assert client.at_end()
    old.wait_end()
    m.wait_status("1/1 workers ready, 0 connections, generation 1")


def test_exit_by_itself(ready, tmp_path):
    """A worker that ends without a word is replaced too, and its status is told."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    m = ready(
        worker="if os.path.exists(os.environ['GATE']):\n    set_state(READY)\n    open(os.environ['GATE']).read()\n"
        "    os.unlink(os.environ['GATE'])\n    sys.exit(5)\nreal(REAL)\n",
        workers=1,
        environment={"GATE": str(gate)},
    )
    with open(gate, "w"):
        pass
    m.wait_status("0/1 workers ready, 0 connections, generation 1; worker 1 exited with status 5")
    wait_replaced(m)


def test_leaves_before_it_was_seen_ready(start, tmp_path):
    """A worker that is ready and on its way out again before the master looks gets a successor, and time to finish."""
    gate = tmp_path / "gate"
    m = start(
        worker="if not os.path.exists(os.environ['GATE']):\n    open(os.environ['GATE'], 'w')\n    set_state(DRAINING)\n"
        "    wait_for_ever()\nreal(REAL)\n",
        workers=1, environment={"GATE": str(gate)})
    m.wait_ready()
    assert len(m.children()) == 2
    assert m.get().status == 200


def test_broken_later_mends_itself(ready):
    """The folder vanishes and a worker dies: the master lives and says why, and when the folder is back all is well."""
    m = ready('workers: { count = 2; };\nrestart: { backoff_min = "50ms"; backoff_max = "100ms"; limit = 0; };')
    away = m.dir / "away"
    m.site.rename(away)
    for worker in m.worker_processes():
        worker.kill(signal.SIGKILL)
    reason = f"exited with status 1: Failed to open the directory {m.site}: No such file or directory"
    for slot in (1, 2):
        m.wait_status(lambda s, slot=slot: s == f"0/2 workers ready, 0 connections, generation 1; worker {slot} {reason}")
    client = m.connect()  # waits, is not refused
    away.rename(m.site)
    assert client.request("/").status == 200
    client.close()
    wait_replaced(m, 2)
    assert m.status is None


def test_every_worker_again_and_again(ready):
    """Killed all over, in any order: in the end all are there, each slot once."""
    m = ready('workers: { count = 3; };\nrestart: { backoff_min = "1ms"; backoff_max = "1ms"; };')
    for _ in range(10):
        for worker in m.worker_processes():
            worker.kill(signal.SIGKILL)
        m.wait_status(lambda s: not s.startswith("3/3"))
        wait_replaced(m, 3)
    # Three that die together may be replaced one after the other: it is complete for a moment between two of them.
    m.wait_until(lambda: m.slots() == [1, 2, 3], "each slot has its worker")
    assert m.get().status == 200
