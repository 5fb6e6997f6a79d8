# SPDX-License-Identifier: MIT
"""An idle service sleeps: one wake-up of the master a tick, none of the workers."""

import pathlib

WORKERS = 'workers: { count = 2; watchdog = "1h"; };'  # which would wake them up as well
WATCHDOG_USEC = 1_000_000  # a tick is half of it: ten that nobody hears fill the socket, and the master would sleep once more


def ticks(m):
    """How many it has told."""
    m.statuses()
    return sum("WATCHDOG=1" in text.split("\n") for _, text in m.messages)


def is_asleep(process):
    """It waits for events."""
    return pathlib.Path(f"/proc/{process.pid}/syscall").read_text().split()[0] in ("7", "232", "271", "281", "441")  # poll and its like


def all_processes(m):
    """The two workers, each of them three: the keeper, who serves, and its twin."""

    def look():
        found = [p for w in m.worker_processes() for p in (w, *w.children())]
        return found if len(found) == 6 else None

    return m.wait_until(look, "the workers and their twins")


def assert_idle(m, workers):
    """Counted by the kernel's context switches over ten ticks, or however many there are until somebody looks."""
    for _ in range(3):  # what the start leaves to do
        m.wait_message("WATCHDOG=1")
    m.wait_until(lambda: all(is_asleep(w) for w in workers), "the sleep of the workers")
    first = ticks(m)
    before, workers_before = m.process.switches(), [w.switches() for w in workers]
    m.wait_until(lambda: ticks(m) >= first + 10, "ten ticks")
    after, workers_after = m.process.switches(), [w.switches() for w in workers]
    assert after - before <= ticks(m) - first + 1  # one more may be under way
    assert workers_after == workers_before


def test_wake_ups(ready):
    m = ready(WORKERS, watchdog_usec=WATCHDOG_USEC)
    assert_idle(m, all_processes(m))


def test_idle_with_connections(ready):
    """Kept connections change nothing of that."""
    m = ready(WORKERS, watchdog_usec=WATCHDOG_USEC)
    clients = [m.connect() for _ in range(20)]
    for client in clients:
        assert client.request("/").status == 200
    m.wait_status("2/2 workers ready, 20 connections, generation 1")
    assert_idle(m, all_processes(m))
    for client in clients:
        client.close()
