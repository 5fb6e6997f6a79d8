# SPDX-License-Identifier: MIT
"""The watchdog of a worker: whoever hangs is found and replaced, whoever does not is left alone.

Where something is to be found the time is short, but no healthy worker stands still for so long; where nothing is to be found it
is longer, for a slow machine."""

import contextlib
import os
import signal
import time

import pytest
from harness import Process
from lifecycle import assert_always, begin, connected, elapse, gate, pids, tell, wait_said
from worker_harness import CELL_SIZE

SHORT = 'workers: { count = 1; watchdog = "2s"; stop_timeout = "1h"; };\nrestart: { backoff_min = "1ms"; limit = 0; };\n'


def long(watchdog, count=2):
    return f'workers: {{ count = {count}; watchdog = "{watchdog}"; }};\n'


def wait_found(m, worker, within="2s", slot=1):
    """Until it has ended as one that hung, which is told twice: when it was found, and what became of it."""
    worker.wait_end()
    wait_said(m, f"Worker {slot} (pid {worker.pid}) was killed: it did not react for {within}.")
    assert m.stderr().count(f"Worker {slot} (pid {worker.pid}) did not react for {within}, replacing it.") == 1


def assert_nobody_accused(m):
    assert "react" not in m.stderr() and "killed" not in m.stderr()


# Found


def test_stopped(ready):
    """The real worker, SIGSTOP: it gets its SIGABRT all the same, and the other one is not touched. Without a twin, which would take
    over (test_twin_master.py)."""
    m = ready(SHORT.replace("count = 1", "count = 2; twin = false"))
    victim, other = m.worker_processes()
    slot = victim.environment()["MUSTER_WORKER"]
    victim.kill(signal.SIGSTOP)
    wait_found(m, victim, slot=slot)
    m.wait_status(lambda s: s.startswith("2/2 workers ready"))
    assert not other.ended() and m.get().status == 200


@pytest.mark.parametrize("command", ["/hang", "/hang?silent", "/deadlock", "/sleep", "/signal?n=19"])
def test_every_way_to_hang(ready, tmp_path, command):
    """An endless loop, a dead-lock, a call that does not come back: found though no client asks, and the next client is served."""
    m = begin(ready, tmp_path, SHORT)
    (old,) = m.worker_processes()
    with contextlib.closing(m.connect()) as client:
        client.send(f"GET {command} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if "silent" not in command:
            assert client.answer().status == 200
        wait_found(m, old)
        with contextlib.suppress(ConnectionError):
            assert client.at_end()
    assert m.get().body == b"hello\n"
    # the reason is told, and forgotten when all is well
    assert any(s.startswith("0/1") and s.endswith("; worker 1 did not react for 2s") for s in m.statuses())
    m.wait_until(lambda: m.statuses()[-1].startswith("1/1 workers ready") and "react" not in m.statuses()[-1], "a clean STATUS")
    assert "trying again" not in m.stderr()


WITNESS = """
try:
    os.close(os.open(os.environ["WITNESS"] + ".first", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    real(REAL)
else:
    children = os.open(f"/proc/{os.getppid()}/task/{os.getppid()}/children", os.O_RDONLY)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])
    beat()
    set_state(READY)
    signal.sigwait([signal.SIGABRT])
    found = os.pread(children, 1000, 0)
    with open(os.environ["WITNESS"], "wb") as f:
        f.write(b"%d %s\\n" % (os.getpid(), found))
    os._exit(3)
"""


def test_replacement_is_started_first(ready, tmp_path):
    """When SIGABRT reaches the old one, the next one is there. Several times, as chance may hide the opposite."""
    services = []
    for n in range(5):
        witness = tmp_path / str(n)
        m = ready(SHORT, worker=WITNESS, environment={"WITNESS": str(witness)})
        services.append((m, witness))
    for m, witness in services:
        m.wait_until(lambda: witness.exists() and witness.read_text().endswith("\n"), "SIGABRT")
        old, *seen = map(int, witness.read_text().split())
        assert old in seen and len(seen) > 1
        wait_said(m, f"Worker 1 (pid {old}) was killed: it did not react for 2s.")


def test_sigabrt_is_ignored(ready, tmp_path):
    """Then it is SIGKILL, 5 s later; the next one serves meanwhile."""
    m = begin(ready, tmp_path, SHORT)
    (old,) = m.worker_processes()
    tell(m, "/stubborn?abort=1")
    began = time.monotonic()
    tell(m, "/hang")
    assert m.get().status == 200  # by the next one
    assert m.whoami()["pid"] != old.pid
    wait_found(m, old)
    assert time.monotonic() - began >= 5
    m.wait_until(lambda: len(pids(m)) == 1, "one worker")


def test_beats_no_more_by_notification(ready, tmp_path):
    """Who has once said WATCHDOG=1 has to go on, though its loop turns."""
    m = begin(ready, tmp_path, SHORT.replace("2s", "4s"))
    (old,) = m.worker_processes()
    tell(m, "/watchdog?on=1")
    elapse(m, 4.5)
    assert_nobody_accused(m)
    tell(m, "/watchdog?on=0")
    wait_found(m, old, "4s")
    assert m.whoami()["pid"] != old.pid


def test_trigger(ready, tmp_path):
    """WATCHDOG=trigger: treated so at once. But nobody says that it had been silent for the time."""
    m = begin(ready, tmp_path, SHORT.replace("2s", "1h"))
    (old,) = m.worker_processes()
    with contextlib.closing(m.connect()) as client:
        client.send(b"GET /notify?WATCHDOG=trigger HTTP/1.1\r\nHost: x\r\n\r\n")  # it may be gone before it answers
        old.wait_end()
    m.wait_until(lambda: f"Worker 1 (pid {old.pid}) was killed" in m.stderr(), "its end in the log")
    assert m.whoami()["pid"] != old.pid
    assert f"Worker 1 (pid {old.pid}) said that it hangs, replacing it." in m.stderr()
    assert "for 1h" not in m.stderr()


def test_leaving_one_hangs(ready, tmp_path):
    """One that is being replaced is watched until then; the successor on its way is the next one."""
    m = begin(ready, tmp_path, SHORT)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}")
    (old,) = m.worker_processes()
    tell(m, "/suicide")
    with open(at, "w"):
        (successor,) = pids(m) - {old.pid}
        tell(m, "/hang")
        wait_found(m, old)
        assert pids(m) == {successor}
    assert m.whoami()["pid"] == successor


def test_canary_hangs(ready, tmp_path):
    """A new worker that hangs in its trial fails the reload."""
    m = begin(ready, tmp_path, SHORT.replace("stop_timeout", 'soak = "1h"; stop_timeout'))
    before = pids(m)
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    wait_said(m, " is ready.", 2)
    (canary,) = (w for w in m.worker_processes() if w.pid not in before)
    with connected(m, canary.pid) as client:
        assert client.request("/hang").status == 200
    assert m.wait_ready().endswith("generation 1; reload failed: worker 1 did not react for 2s")
    wait_found(m, canary)
    assert pids(m) == before


def test_again_and_again(ready, tmp_path):
    """A hang is an early death like others: the pause grows."""
    m = begin(ready, tmp_path, SHORT.replace('"1ms"', '"40ms"'))
    for n in range(3):
        (old,) = m.worker_processes()
        tell(m, "/hang")
        wait_found(m, old)
        wait_said(m, " is ready.", n + 2)
        m.wait_until(lambda: len(pids(m)) == 1, "one worker")
    assert "died early 2 times in a row, trying again in 40ms." in m.stderr()
    assert "died early 3 times in a row, trying again in 80ms." in m.stderr()


def test_many_at_once(ready, tmp_path):
    """All of four: each is found, the service is back."""
    m = begin(ready, tmp_path, SHORT.replace("count = 1", "count = 4"))
    old = m.worker_processes()
    for worker in old:
        worker.kill(signal.SIGSTOP)
    for worker in old:
        worker.wait_end()
    m.wait_until(lambda: m.statuses()[-1].startswith("4/4 workers ready") and "react" not in m.statuses()[-1], "all of them")
    for worker in old:
        assert m.stderr().count(f"(pid {worker.pid}) did not react for 2s, replacing it.") == 1
    assert m.get().status == 200


# Left alone


def test_idle_workers_stay(ready):
    """Who has nothing to do is asked for a sign of life, and gives it."""
    m = ready(long("3s"))
    before = pids(m)
    with contextlib.closing(m.board()) as board:
        def beats():
            return [int.from_bytes(board[cell * CELL_SIZE + 24 : cell * CELL_SIZE + 32], "little") for cell in range(2)]

        first = beats()
        assert all(n > 0 for n in first)
        m.wait_until(lambda: all(now >= then + 2 for now, then in zip(beats(), first)), "beats of both")
    assert_nobody_accused(m)
    assert pids(m) == before


def test_blocked_for_a_while(ready, tmp_path):
    """Longer than until it is probed, shorter than the watchdog: it stays."""
    m = begin(ready, tmp_path, long("3s", count=1))
    (worker,) = m.worker_processes()
    for _ in range(2):
        with contextlib.closing(m.connect()) as client:
            assert client.request("/block?msec=2000").status == 200
            assert client.request("/").status == 200  # after that
    assert_nobody_accused(m)
    assert m.whoami()["pid"] == worker.pid


def test_beats_by_notification(ready, tmp_path):
    """WATCHDOG=1 in half of the time that it is told, as systemd's own services do."""
    m = begin(ready, tmp_path, long("5s"), "watchdog notify")
    before = pids(m)
    elapse(m, 7)
    assert_nobody_accused(m)
    assert pids(m) == before


SLOW_START = """
import socket

def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])

notify("WATCHDOG=1")
time.sleep(3.1)
notify("READY=1")
time.sleep(0.7)
while True:
    notify("WATCHDOG=1")
    time.sleep(0.2)
"""


def test_slow_start(ready):
    """The time begins when it is ready (systemd's does too), though it has shown that it will beat: start_timeout is for the start."""
    m = ready(long("3s", count=1), worker=SLOW_START, watchdog_usec=400_000)  # which makes it look every 200 ms
    before = pids(m)
    elapse(m, 1.5)
    assert_nobody_accused(m)
    assert pids(m) == before


def test_never_spoken(ready):
    """One that knows nothing of any watchdog is not asked for what it never promised."""
    m = ready('workers: { count = 2; watchdog = "100ms"; };', worker="set_state(READY)\nwait_for_ever()\n", watchdog_usec=200_000)
    before = pids(m)
    for _ in range(10):
        m.wait_message("WATCHDOG=1")
    assert_nobody_accused(m)
    assert pids(m) == before


def test_switched_off(ready):
    """watchdog = "0": a worker that is stopped stays stopped."""
    m = ready('workers: { count = 1; watchdog = "0"; };', watchdog_usec=200_000)
    (worker,) = m.worker_processes()
    assert "WATCHDOG_USEC" not in worker.environment() and "WATCHDOG_PID" not in worker.environment()
    worker.kill(signal.SIGSTOP)
    for _ in range(10):
        m.wait_message("WATCHDOG=1")
    assert not worker.ended()
    assert_nobody_accused(m)
    worker.kill(signal.SIGCONT)


def test_retiring_one_is_left_to_its_stop_timeout(ready, tmp_path):
    """Who was told to go is not watched: it has stop_timeout for what is open."""
    m = begin(ready, tmp_path, 'workers: { count = 1; watchdog = "2s"; };\nrestart: { backoff_min = "1ms"; };')
    (old,) = m.worker_processes()
    with contextlib.closing(m.connect()) as client:
        client.send(b"GET /block?msec=5500 HTTP/1.1\r\nHost: x\r\n")
        m.wait_connections(1)
        tell(m, "/suicide")
        m.wait_until(lambda: m.whoami()["pid"] != old.pid, "the successor")
        client.send(b"\r\n")
        assert client.answer().status == 200
    old.wait_end()
    wait_said(m, f"(pid {old.pid}) exited with status 0.")
    assert f"(pid {old.pid}) did not react" not in m.stderr()


@pytest.mark.parametrize("mode", ["", "watchdog notify"])
def test_stopped_master(ready, tmp_path, mode):
    """The master itself did not run, for longer than the watchdog: what it missed proves nothing against its workers."""
    m = begin(ready, tmp_path, long("4s"), mode)
    before = pids(m)
    m.kill(signal.SIGSTOP)
    elapse(m, 5)
    m.kill(signal.SIGCONT)
    elapse(m, 2.5)
    assert_nobody_accused(m)
    assert pids(m) == before
    assert m.get().status == 200


OWING = """
import select

beat()
set_state(READY)
select.select([int(os.environ["MUSTER_CHANNEL_FD"])], [], [])  # the probe
open(os.environ["PROBED"], "w").close()
open(os.environ["GATE"]).read()
while True:
    beat()
    time.sleep(0.1)
"""


def test_all_were_stopped(ready, tmp_path):
    """The machine slept: a worker that owes an answer since then has the whole time for it again."""
    watchdog = 3
    at, probed = gate(tmp_path), gate(tmp_path, "probed")
    m = ready(long("3s", count=1), worker=OWING, environment={"GATE": str(at), "PROBED": str(probed)})
    before = pids(m)
    with open(probed):
        m.kill(signal.SIGSTOP)
    elapse(m, 1.2 * watchdog)
    m.kill(signal.SIGCONT)
    elapse(m, 0.2)
    assert_nobody_accused(m)  # else nobody stands at the gate
    with open(at, "w"):
        pass
    elapse(m, watchdog)
    assert_nobody_accused(m)
    assert pids(m) == before


# While the master was stopped everything becomes due at once: what happened in time counts before the deadline.

SLOW = """
if not os.path.exists(os.environ["GATE"]):
    real(REAL)
with open(os.environ["GATE"]) as gate:
    gate.read()
if os.environ["HOW"] == "board":
    set_state(READY)
else:
    import socket
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
open(os.environ["DONE"], "w").close()
wait_for_ever()
"""


@pytest.mark.parametrize("how", ["board", "notify"])
def test_stopped_master_and_a_start(ready, tmp_path, how):
    """A worker that was ready in time while the master did not look is not said to be late."""
    at, done = tmp_path / "gate", gate(tmp_path, "done")
    m = ready('workers: { count = 1; start_timeout = "5s"; };', worker=SLOW, environment={"GATE": str(at), "DONE": str(done), "HOW": how})
    os.mkfifo(at)
    (old,) = m.worker_processes()
    old.kill(signal.SIGKILL)
    with open(at, "w"):
        m.kill(signal.SIGSTOP)
    with open(done):
        pass
    elapse(m, 5.2)
    m.kill(signal.SIGCONT)
    wait_said(m, " is ready.", 2)
    assert "did not get ready" not in m.stderr()


def test_stopped_master_and_a_stop(ready, tmp_path):
    """A worker that finished in time likewise."""
    m = begin(ready, tmp_path, 'workers: { count = 1; stop_timeout = "5s"; };\nrestart: { backoff_min = "1ms"; };')
    (old,) = m.worker_processes()
    with contextlib.closing(m.connect()) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        m.wait_connections(1)
        tell(m, "/suicide")
        m.wait_until(lambda: m.whoami()["pid"] != old.pid, "the successor")
        m.kill(signal.SIGSTOP)
        client.send(b"\r\n")
        assert client.answer().status == 200
    old.wait_end()  # a zombie, as long as the master sleeps
    elapse(m, 5.2)
    m.kill(signal.SIGCONT)
    m.wait_until(lambda: f"(pid {old.pid}) exited" in m.stderr() or "killed" in m.stderr(), "its end in the log")
    assert f"(pid {old.pid}) exited with status 0." in m.stderr() and "did not finish" not in m.stderr()
