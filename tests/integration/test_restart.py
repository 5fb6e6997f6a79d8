# SPDX-License-Identifier: MIT
"""Which worker comes after one that died, and when. (test_crash.py: by which signal, and the pauses.)"""

import contextlib
import signal
import time

import pytest
from lifecycle import assert_always, begin, connected, elapse, gate, pids, tell, wait_said

NEVER_AGAIN = 'restart: { backoff_min = "1h"; backoff_max = "1h"; };'

# How it is told to end, what the log says of that, and what STATUS says until the next one is ready.
CAUSES = {
    "crash": ("/crash", "was killed by signal 6, SIGABRT"),
    "segv": ("/signal?n=11", "was killed by signal 11, SIGSEGV"),
    "kill": ("/signal?n=9", "was killed by signal 9, SIGKILL"),
    "silent crash": ("/crash?silent", "was killed by signal 6, SIGABRT"),
    "status": ("/exit?code=7", "exited with status 7"),
    "success": ("/exit?code=0", "exited with status 0"),
}


@pytest.mark.parametrize("command, line", CAUSES.values(), ids=list(CAUSES))
def test_refilled_at_once(ready, tmp_path, command, line):
    """However it ended, the next one is there without a pause, and the client that waits gets its answer."""
    m = begin(ready, tmp_path, f"workers: {{ count = 1; }};\n{NEVER_AGAIN}")
    (old,) = m.worker_processes()
    with contextlib.closing(m.connect()) as client:
        client.send(f"GET {command} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        old.wait_end()
    assert m.get().status == 200
    wait_said(m, f"Worker 1 (pid {old.pid}) {line}.")
    m.wait_status(lambda s: s.startswith("0/1 workers ready") and s.endswith(f", generation 1; worker 1 {line}"))
    m.wait_status(lambda s: s.startswith("1/1 workers ready") and line not in s)
    assert "trying again" not in m.stderr()


FAILING = 'restart: { limit = 3; window = "60s"; backoff_min = "1ms"; backoff_max = "150ms"; };'


def make_fail(m, mode="exit=3@worker=1", slot=1):
    """The worker of that slot dies, and all that come after it."""
    m.life.set_mode(mode)
    began = time.monotonic()
    for worker in m.worker_processes():
        with contextlib.suppress(OSError):  # one of before, which has just gone
            if worker.environment().get("MUSTER_WORKER") == str(slot):
                worker.kill(signal.SIGKILL)
    return began


def test_failing(ready, tmp_path):
    """Past the limit it is said, once, in STATUS and in the log; the others serve, and the master stays."""
    m = begin(ready, tmp_path, f"workers: {{ count = 2; }};\n{FAILING}")
    before = pids(m)
    began = make_fail(m)
    m.wait_status(lambda s: s.startswith("1/2 workers ready, ") and ", generation 1; 1 failing; worker 1 exited with status 3" in s)
    attempts = m.stderr().count(" exited with status 3.")
    assert "Worker 1 is failing: more than 3 deaths within 1min; trying again every 150ms." in m.stderr()
    wait_said(m, " exited with status 3.", attempts + 4)
    # 3 attempts up to the limit (the first death was another), and one each backoff_max
    assert m.stderr().count(" exited with status 3.") <= 3 + (time.monotonic() - began) / 0.15 + 1
    assert m.stderr().count("is failing") == 1 and m.stderr().count("trying again in") <= 3
    assert m.get().status == 200 and len(pids(m) & before) == 1
    assert not m.process.ended()


def test_failing_and_clients(ready, tmp_path):
    """The only worker is failing: a client is not refused, and is served as soon as it can be."""
    m = begin(ready, tmp_path, f"workers: {{ count = 1; }};\n{FAILING}")
    make_fail(m)
    wait_said(m, "is failing")
    with contextlib.closing(m.connect()) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_said(m, " exited with status 3.", 5)
        m.life.set_mode("")
        assert client.answer().status == 200
    m.wait_status(lambda s: s.startswith("1/1 workers ready") and "failing" not in s and "exited" not in s)


def reloads(m):
    m.kill(signal.SIGHUP)
    return "; reload failed" not in m.wait_ready()


@pytest.mark.parametrize("mode, line", [
    ("crash-at-start", "was killed by signal 6, SIGABRT"),
    ("never-ready", "was killed: not ready within 300ms"),
    ("hang-at-start", "was killed: not ready within 300ms"),
    ("exit-after=1", "exited with status 0"),
    ("crash-after=1", "was killed by signal 6, SIGABRT"),
])
def test_every_way_to_fail(ready, tmp_path, mode, line):
    """Whatever keeps it from being well counts."""
    m = begin(ready, tmp_path, f'workers: {{ count = 1; start_timeout = "10s"; }};\n{FAILING}')
    if "300ms" in line:  # the first one had more time
        m.write_config(f'workers: {{ count = 1; start_timeout = "300ms"; soak = "1ms"; }};\n{FAILING}')
        m.wait_until(lambda: reloads(m), "a worker in 300ms")  # on a slow machine that may be too short
    make_fail(m, mode)
    m.wait_status(lambda s: "; 1 failing" in s)
    m.wait_until(lambda: f") {line}." in m.stderr(), "the cause in the log")


def test_limit_0(ready, tmp_path):
    """0: it is never called failing."""
    m = begin(ready, tmp_path, f"workers: {{ count = 1; }};\n{FAILING}".replace("limit = 3", "limit = 0"))
    make_fail(m)
    wait_said(m, " exited with status 3.", 8)
    assert "is failing" not in m.stderr() and not any("failing" in s for s in m.statuses())


def test_deaths_far_apart(ready, tmp_path):
    """What lies outside of the window does not count."""
    m = begin(ready, tmp_path, f"workers: {{ count = 1; }};\n{FAILING}".replace('"60s"', '"1ms"').replace('min = "1ms"', 'min = "20ms"'))
    make_fail(m)
    wait_said(m, " exited with status 3.", 8)
    assert "is failing" not in m.stderr()


def test_reload_mends(ready, tmp_path):
    """A reload does not wait for the next attempt, and the slot begins anew: its next death is followed at once."""
    m = begin(ready, tmp_path, f"workers: {{ count = 2; }};\n{FAILING}".replace("150ms", "1h"))
    make_fail(m)
    m.wait_status(lambda s: "; 1 failing; " in s)
    m.life.set_mode("")
    m.kill(signal.SIGHUP)
    assert m.wait_ready() == "READY=1\nSTATUS=2/2 workers ready, 0 connections, generation 2"
    for worker in m.worker_processes():
        worker.kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("1/2 ") or s.startswith("0/2 "))
    m.wait_status("2/2 workers ready, 0 connections, generation 2")
    assert m.stderr().count("is failing") == 1


def test_scaled_away(ready, tmp_path):
    """A slot that is not wanted any more takes its failure along."""
    m = begin(ready, tmp_path, f"workers: {{ count = 2; }};\n{FAILING}".replace("150ms", "1h"))
    make_fail(m, "exit=3@worker=2", slot=2)
    m.wait_status(lambda s: "; 1 failing; worker 2 exited with status 3" in s)
    m.kill(signal.SIGTTOU)
    m.wait_status("1/1 workers ready, 0 connections, generation 1")


def test_failed_reload_mends_nothing(ready, tmp_path):
    """It stays failing, and STATUS says both."""
    m = begin(ready, tmp_path, f"workers: {{ count = 2; }};\n{FAILING}".replace("150ms", "1h"))
    make_fail(m)
    m.wait_status(lambda s: "; 1 failing; " in s)
    m.kill(signal.SIGHUP)
    said = m.wait_ready()
    assert ", generation 1; 1 failing; reload failed: worker 1 exited with status 3" in said
    assert m.get().status == 200


def test_committed_generation(ready, tmp_path):
    """A file that changed on the disk, for better or for worse, counts with the next reload and not with the next death."""
    m = begin(ready, tmp_path, "workers: { count = 1; };\nrestart: { backoff_min = \"1ms\"; };")
    for text in ("workers: { count = 1; }; http: { idle_timeout = \"7s\"; };", "workers: {{ nonsense", None):
        if text is None:
            m.config_file.unlink()
        else:
            m.write_config(text)
        (old,) = m.worker_processes()
        old.kill(signal.SIGKILL)
        m.wait_status(lambda s: s.startswith("0/1 "))
        m.wait_status("1/1 workers ready, 0 connections, generation 1")
        (new,) = m.worker_processes()
        with open(f"/proc/{new.pid}/cmdline") as f:
            assert "--idle-timeout=1min" in f.read().split("\0")
        assert new.environment()["MUSTER_GENERATION"] == "1"
    assert "RELOADING" not in str(m.messages)


def test_committed_generation_in_the_soak(ready, tmp_path):
    """An old worker that dies while the new generation is on trial is followed by one of its own."""
    m = begin(ready, tmp_path, 'workers: { count = 2; soak = "1h"; };\nrestart: { backoff_min = "1ms"; };')
    old = m.worker_processes()
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    wait_said(m, " is ready.", 3)
    old[0].kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("1/2 "))
    m.wait_status(lambda s: s.startswith("2/2 ") and ", generation 1" in s)
    generations = sorted(w.environment()["MUSTER_GENERATION"] for w in m.worker_processes())
    assert generations == ["1", "1", "2"]


def test_unknown_state_on_the_board(start):
    """One that writes nonsense instead of being ready is late like others: the first start fails, with the reason."""
    m = start('workers: { count = 1; start_timeout = "300ms"; };', worker="set_state(77)\nwait_for_ever()\n")
    assert m.wait_exit() == 1
    assert m.statuses()[-1] == "Failed to start: worker 1 was killed: not ready within 300ms"
