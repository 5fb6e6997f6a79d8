# SPDX-License-Identifier: MIT
"""An idle service sleeps: one wake-up of the master a tick, none of the workers."""


def test_wake_ups(ready):
    """Counted by the kernel's context switches over ten ticks."""
    m = ready(watchdog_usec=400_000)
    workers = m.worker_processes()
    for _ in range(3):  # what the start leaves to do
        m.wait_message("WATCHDOG=1")
    before, workers_before = m.process.switches(), [w.switches() for w in workers]
    for _ in range(10):
        m.wait_message("WATCHDOG=1")
    assert m.process.switches() - before <= 10 + 1  # one more may be under way
    assert [w.switches() for w in workers] == workers_before


def test_idle_with_connections(ready):
    """Kept connections change nothing of that."""
    m = ready(watchdog_usec=400_000)
    clients = [m.connect() for _ in range(20)]
    for client in clients:
        assert client.request("/").status == 200
    workers = m.worker_processes()
    m.wait_status("2/2 workers ready, 20 connections, generation 1")
    m.wait_message("WATCHDOG=1")
    before, workers_before = m.process.switches(), [w.switches() for w in workers]
    for _ in range(10):
        m.wait_message("WATCHDOG=1")
    assert m.process.switches() - before <= 10 + 1
    assert [w.switches() for w in workers] == workers_before
    for client in clients:
        client.close()
