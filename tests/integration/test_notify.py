# SPDX-License-Identifier: MIT
"""What systemd is told, word by word and in time."""

import contextlib
import os
import select
import signal
import time

from worker_harness import DEADLINE


def test_start(start):
    """EXTEND_TIMEOUT_USEC while the workers start, then READY=1 with the status, once."""
    m = start("workers: { count = 2; start_timeout = \"7s\"; };")
    assert m.wait_ready() == "READY=1\nSTATUS=2/2 workers ready, 0 connections, generation 1"
    texts = [text for _, text in m.messages]
    assert texts[0] == "EXTEND_TIMEOUT_USEC=12000000"
    assert texts[1].startswith("STATUS=Starting: ")
    m.kill()
    m.wait_exit()
    assert sum("READY=1" in text.split("\n") for _, text in m.messages) == 1


def test_ready_waits_for_the_last(start, tmp_path):
    """One worker that is not ready yet holds READY=1 back; STATUS counts the others."""
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    m = start(
        worker="if SLOT == 2:\n    open(os.environ['GATE']).read()\nreal(REAL)\n", workers=3, environment={"GATE": str(fifo)}
    )
    m.wait_status("Starting: 2/3 workers ready")
    assert not any("READY=1" in text for _, text in m.messages)
    assert m.get().status == 200  # the others serve already
    with open(fifo, "w"):
        pass
    assert "STATUS=3/3 workers ready, " in m.wait_ready()  # the connection of that question may still be counted


def test_connections_are_counted(start):
    """STATUS follows the number of open connections, at every tick."""
    m = start(watchdog_usec=400_000)
    m.wait_ready()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            client = m.connect()
            stack.callback(client.close)
            assert client.request("/").status == 200
        m.wait_status("2/2 workers ready, 5 connections, generation 1")
    m.wait_status("2/2 workers ready, 0 connections, generation 1")


def test_status_only_when_it_changed(start):
    """An idle service pings, and repeats nothing else."""
    m = start(watchdog_usec=200_000)
    m.wait_ready()
    for _ in range(5):
        m.wait_message("WATCHDOG=1")
    after = [text for _, text in m.messages]
    after = after[[i for i, t in enumerate(after) if "READY=1" in t][0] + 1 :]
    assert set(after) == {"WATCHDOG=1"}


def pings(m, began, interval, n):
    """Waits until so many have come at half of the time after the one before; some may be late, on a busy machine."""
    times = []
    while sum(interval * 0.45 <= b - a <= interval * 0.7 for a, b in zip(times, times[1:])) < n:
        assert time.monotonic() - began < DEADLINE, times
        m.wait_message("WATCHDOG=1")
        times.append(m.messages[m.seen - 1][0])
    assert times[-1] - began >= len(times) * interval * 0.45  # not more often than it must


def test_watchdog_at_half_the_time(start):
    """Never later than the whole, usually at half of it."""
    interval, began = 1.0, time.monotonic()
    m = start(watchdog_usec=int(interval * 1e6))
    m.wait_ready()
    pings(m, began, interval, 4)


def test_short_watchdog(start):
    """However short the time is, the ping comes in it."""
    interval, began = 0.2, time.monotonic()
    m = start(watchdog_usec=int(interval * 1e6))
    m.wait_ready()
    pings(m, began, interval, 12)


def test_watchdog_of_another(start):
    """WATCHDOG_PID names another process: no ping. STATUS still comes, by the default tick."""
    m = start(watchdog_usec=100_000, environment={"WATCHDOG_PID": "1"})
    m.wait_ready()
    select.select([m.notify_socket], [], [], 1)
    m._receive()
    assert not any("WATCHDOG=1" in text for _, text in m.messages)


def test_no_notify_socket(start):
    """Without anybody to tell it serves all the same."""
    m = start(notify=False)
    client = m.connect()
    assert client.request("/").status == 200
    client.close()
    m.kill()
    assert m.wait_exit() == 0
    assert m.messages == []


def test_stop(start):
    """STOPPING=1, and more time while workers finish."""
    m = start('workers: { count = 1; stop_timeout = "9s"; };')
    m.wait_ready()
    m.kill()
    assert m.wait_message("STOPPING=1") == "STOPPING=1\nSTATUS=Stopping: 1 workers finish 0 connections"
    m.wait_message("EXTEND_TIMEOUT_USEC=14000000")
    assert m.wait_exit() == 0


def test_reload(start):
    """RELOADING=1 with the time of CLOCK_MONOTONIC, as Type=notify-reload wants it; then READY=1."""
    m = start()
    m.wait_ready()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    m.kill(signal.SIGHUP)
    lines = m.wait_message("RELOADING=1").split("\n")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert lines[0] == "RELOADING=1"
    assert lines[1].startswith("MONOTONIC_USEC=") and before <= int(lines[1][15:]) <= after
    assert lines[2] == "STATUS=2/2 workers ready, 0 connections, generation 1"
    assert m.wait_ready() == "READY=1\nSTATUS=2/2 workers ready, 0 connections, generation 2"


def test_status_is_one_clean_line(start):
    """What a file or a worker brings along cannot add a line or break the encoding of a message."""
    m = start(worker='set_reason("no\\nREADY=1")\nboard[CELL * CELL_SIZE + REASON_OFFSET] = 0xFF\nsys.exit(3)\n')
    assert m.wait_exit() == 1
    last = m.statuses()[-1]
    assert last.startswith("Failed to start: worker ") and "exited with status 3: ?o?READY=1" in last
    assert not any("READY=1" in text.split("\n") for _, text in m.messages)
