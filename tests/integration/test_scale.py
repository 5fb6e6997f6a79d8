# SPDX-License-Identifier: MIT
"""More and fewer workers at run time: SIGTTIN, SIGTTOU. (By a number on the control socket: test_control.py.)"""

import contextlib
import signal
import struct

from lifecycle import Asking, begin, connected, gate, pids, wait_said
from worker_harness import CELL_SIZE, DRAINING

REFUSED = "Not scaled: the service is starting, reloading or stopping."


def wait_draining(m, worker):
    """Until it has heard that it is to go, and accepts nothing more."""
    with contextlib.closing(m.board()) as board:
        place = int(worker.environment()["MUSTER_BOARD_CELL"]) * CELL_SIZE
        m.wait_until(lambda: struct.unpack_from("=I", board, place)[0] == DRAINING, f"the drain of {worker.pid}")


def test_one_more_one_less(ready):
    """The others stay as they are, and the number is told."""
    m = ready(workers=2)
    before = pids(m)
    m.kill(signal.SIGTTIN)
    m.wait_status("3/3 workers ready, 0 connections, generation 1")
    assert len(pids(m)) == 3 and before < pids(m) and m.slots() == [1, 2, 3]
    assert "3 workers instead of 2." in m.stderr()
    m.kill(signal.SIGTTOU)
    m.wait_status("2/2 workers ready, 0 connections, generation 1")
    m.wait_until(lambda: pids(m) == before, "the end of the third")
    assert "2 workers instead of 3." in m.stderr()
    assert m.get().status == 200 and not any("RELOADING=1" in text for _, text in m.messages)


def test_new_one_is_not_ready_yet(ready, tmp_path):
    """STATUS says how many there are to be, and how many there are."""
    m = begin(ready, tmp_path, workers=1)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}")
    m.kill(signal.SIGTTIN)
    with open(at, "w"):
        m.wait_status("1/2 workers ready, 0 connections, generation 1")
        assert m.get().status == 200
    m.wait_status(lambda s: s.startswith("2/2 workers ready"))


def test_open_request_is_finished(ready, tmp_path):
    """The one that goes finishes what it has accepted."""
    m = begin(ready, tmp_path, workers=2)
    (second,) = (w for w in m.worker_processes() if w.environment()["MUSTER_WORKER"] == "2")
    with connected(m, second.pid) as client:
        client.send(b"GET /whoami HTTP/1.1\r\nHost: x\r\n")
        m.kill(signal.SIGTTOU)
        m.wait_status(lambda s: s.startswith("1/1 workers ready"))
        wait_draining(m, second)
        for _ in range(5):
            assert m.whoami()["pid"] != second.pid
        assert not second.ended()
        client.send(b"\r\n")
        answer = client.answer()
        assert answer.status == 200 and answer.closes and f'"pid":{second.pid},' in answer.body.decode()
    second.wait_end()


def test_clients_notice_nothing(ready):
    """Up and down under clients."""
    m = ready(workers=1)
    with Asking(m):
        n = 1
        for step in (+1, +1, +1, -1, -1, -1, +1, -1):
            n += step
            m.kill(signal.SIGTTIN if step > 0 else signal.SIGTTOU)
            m.wait_status(lambda s, n=n: s.startswith(f"{n}/{n} workers ready"))
            m.wait_until(lambda n=n: len(pids(m)) == n, f"{n} workers")
    assert "killed" not in m.stderr()


def test_bounds(ready):
    """Not below one."""
    m = ready(workers=1)
    before = pids(m)
    m.kill(signal.SIGTTOU)
    wait_said(m, "Not scaled: the number of workers is 1 to 256.")
    assert pids(m) == before and m.statuses()[-1] == "1/1 workers ready, 0 connections, generation 1"
    m.kill(signal.SIGTTIN)
    m.wait_status(lambda s: s.startswith("2/2"))


def test_while_starting(start, tmp_path):
    """Refused, in words."""
    at = gate(tmp_path)
    m = begin(start, tmp_path, mode=f"gate={at}", workers=1)
    with open(at, "w"):
        m.kill(signal.SIGTTIN)
        wait_said(m, REFUSED)
    assert "STATUS=1/1 workers ready" in m.wait_ready()


def test_while_reloading(ready, tmp_path):
    """Likewise; the reload goes on with the number of its file."""
    m = begin(ready, tmp_path, workers=2)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}@worker=1")
    m.kill(signal.SIGHUP)
    with open(at, "w"):
        m.kill(signal.SIGTTIN)
        wait_said(m, REFUSED)
        m.kill(signal.SIGTTOU)
        wait_said(m, REFUSED, 2)
    assert "STATUS=2/2 workers ready, 0 connections, generation 2" in m.wait_ready()
    m.wait_until(lambda: m.slots() == [1, 2], "the new ones alone")


def test_while_stopping(ready):
    """Likewise: nothing new is started."""
    m = ready('workers: { count = 1; stop_timeout = "1h"; };')
    (worker,) = m.worker_processes()
    worker.kill(signal.SIGSTOP)
    m.kill()
    m.wait_message("STOPPING=1")
    m.kill(signal.SIGTTIN)
    wait_said(m, REFUSED)
    assert pids(m) == {worker.pid}
    worker.kill(signal.SIGCONT)
    assert m.wait_exit() == 0


def test_reload_goes_back_to_the_file(ready):
    """The file's number counts again, whether it was more or less; a failed reload changes nothing."""
    m = ready(workers=2)
    for signo, n in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 1)):
        m.kill(signo)
        m.wait_status(lambda s, n=n: s.startswith(f"{n}/{n} workers ready"))
        m.write_config(directory="/nonexistent")
        m.kill(signal.SIGHUP)
        assert f"STATUS={n}/{n} workers ready" in m.wait_ready()
        m.write_config()
        m.kill(signal.SIGHUP)
        assert "STATUS=2/2 workers ready" in m.wait_ready()
        m.wait_until(lambda: m.slots() == [1, 2], "the two of the file")


def test_crash_after_scaling(ready):
    """The slot that was added is one like others."""
    m = ready(workers=1)
    m.kill(signal.SIGTTIN)
    m.wait_status(lambda s: s.startswith("2/2"))
    old = m.worker_processes()
    for w in old:
        w.kill(signal.SIGKILL)
    wait_said(m, " is ready.", 4)
    assert all(w.ended() for w in old) and m.slots() == [1, 2]


def test_new_one_cannot_start(ready, tmp_path):
    """The others serve on, and STATUS says why it is missing. When its slot is taken away again, all is well."""
    m = begin(ready, tmp_path, 'restart: { limit = 2; backoff_min = "1ms"; backoff_max = "1h"; };', workers=1)
    m.life.set_mode("exit=6@worker=2")
    m.kill(signal.SIGTTIN)
    m.wait_status(lambda s: s.startswith("1/2 workers ready") and s.endswith("; 1 failing; worker 2 exited with status 6"))
    assert m.get().status == 200
    m.kill(signal.SIGTTOU)
    m.wait_status(lambda s: s.startswith("1/1 workers ready") and "failing" not in s and "exited" not in s)


def test_history_goes_with_the_slot(ready, tmp_path):
    """A slot that was taken away and comes back begins anew."""
    m = begin(ready, tmp_path, 'restart: { limit = 2; backoff_min = "1ms"; backoff_max = "1h"; };', workers=1)
    m.life.set_mode("exit=6@worker=2")
    m.kill(signal.SIGTTIN)
    wait_said(m, "Worker 2 is failing")
    m.kill(signal.SIGTTOU)
    m.wait_status(lambda s: s.startswith("1/1 workers ready"))
    m.life.set_mode("")
    m.kill(signal.SIGTTIN)
    m.wait_status(lambda s: s.startswith("2/2 workers ready"))
