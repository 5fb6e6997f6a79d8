# SPDX-License-Identifier: MIT
"""Every end of a worker is one line that says how it came about, and no other line claims something else."""

import re
import signal

import pytest
from lifecycle import begin, gate, pids, tell, wait_said

WORKERS = 'workers: { count = 1; start_timeout = "400ms"; stop_timeout = "400ms"; watchdog = "400ms"; };\nrestart: { backoff_min = "1ms"; limit = 0; };'
CALM = WORKERS.replace('watchdog = "400ms"', 'watchdog = "0"').replace('_timeout = "400ms"', '_timeout = "1min"')


def line_of(m, process):
    """What is said of its end, once it is said."""
    pattern = re.compile(rf"Worker \d+ \(pid {process.pid}\) ((?:exited|was killed).*)\.\n")
    m.wait_until(lambda: pattern.search(m.stderr()), f"a line about {process.pid}")
    (found,) = pattern.findall(m.stderr())
    return found


def assert_line(m, process, expected):
    process.wait_end()
    assert line_of(m, process) == expected


@pytest.mark.parametrize("command, expected", [
    ("/exit?code=0", "exited with status 0"),
    ("/exit?code=9", "exited with status 9"),
    ("/crash", "was killed by signal 6, SIGABRT"),
    ("/signal?n=9", "was killed by signal 9, SIGKILL"),
    ("/signal?n=24", "was killed by signal 24, SIGXCPU"),
    ("/signal?n=40", "was killed by signal 40"),
    ("/suicide", "exited with status 0"),
])
def test_by_itself(ready, tmp_path, command, expected):
    m = begin(ready, tmp_path, CALM)
    (worker,) = m.worker_processes()
    tell(m, command)
    assert_line(m, worker, expected)


@pytest.mark.parametrize("mode, expected", [
    ("never-ready", "was killed: not ready within 400ms"),
    ("hang-at-start", "was killed: not ready within 400ms"),
    ("exit=4", "exited with status 4"),
    ("crash-at-start", "was killed by signal 6, SIGABRT"),
])
def test_first_start(start, tmp_path, mode, expected):
    """It is the reason of the whole service's failure too: exit status 1, and STATUS says it last."""
    m = begin(start, tmp_path, WORKERS if "400ms" in expected else CALM, mode)
    assert m.wait_exit() == 1
    assert m.statuses()[-1] == f"Failed to start: worker 1 {expected}"
    assert re.search(rf"Worker 1 \(pid \d+\) {re.escape(expected)}\.\n", m.stderr())
    assert f'The app "web" cannot start: worker 1 {expected}' in m.stderr()


def test_watchdog(ready, tmp_path):
    m = begin(ready, tmp_path, CALM.replace('watchdog = "0"', 'watchdog = "4s"'))
    (worker,) = m.worker_processes()
    tell(m, "/hang")
    assert_line(m, worker, "was killed: it did not react for 4s")


def test_stop_timeout(ready, tmp_path):
    m = begin(ready, tmp_path, CALM.replace('stop_timeout = "1min"', 'stop_timeout = "400ms"'))
    (worker,) = m.worker_processes()
    tell(m, "/stubborn")
    m.kill()
    assert m.wait_exit() == 0
    assert_line(m, worker, "was killed: not finished within 400ms")


def test_told_to_go(ready, tmp_path):
    m = begin(ready, tmp_path, CALM)
    (worker,) = m.worker_processes()
    m.kill()
    assert m.wait_exit() == 0
    assert_line(m, worker, "exited with status 0")


def test_abandoned(ready, tmp_path):
    """A successor that a reload has made needless."""
    m = begin(ready, tmp_path, CALM)
    before = pids(m)
    at = gate(tmp_path)
    m.life.set_mode(f"gate={at}@generation=1")
    tell(m, "/suicide")
    with open(at, "w"):
        (successor,) = (w for w in m.worker_processes() if w.pid not in before)
        m.kill(signal.SIGHUP)
        assert "generation 2" in m.wait_ready()
        assert_line(m, successor, "was killed: not needed any more")


def test_told_to_go_by_somebody(ready, tmp_path):
    """A worker without a handler for SIGTERM, as programs are: its end by the order is no crash."""
    m = ready('workers: { count = 1; };\nrestart: { backoff_min = "1ms"; };', worker="set_state(READY)\nwait_for_ever()\n")
    (worker,) = m.worker_processes()
    m.kill()
    assert m.wait_exit() == 0
    assert_line(m, worker, "was killed by signal 15, SIGTERM")


def test_errno(ready, tmp_path):
    """What it said by ERRNO= is the reason, where it gave no other."""
    m = begin(ready, tmp_path, CALM)
    (worker,) = m.worker_processes()
    assert tell(m, "/notify?ERRNO=2") == "sent"
    tell(m, "/exit?code=1")
    assert_line(m, worker, "exited with status 1: No such file or directory")
