# SPDX-License-Identifier: MIT
"""When the master is gone the workers go too."""

import signal
import time

from worker_harness import DEADLINE


def test_sigkill(ready):
    """They hear of it by PR_SET_PDEATHSIG and end like on a stop."""
    m = ready()
    workers = m.worker_processes()
    m.kill(signal.SIGKILL)
    assert m.wait_exit() == -signal.SIGKILL
    for worker in workers:
        worker.wait_end()


def test_open_request_is_finished(ready):
    """They answer what is open before they go."""
    m = ready(workers=1)
    (worker,) = m.worker_processes()
    client = m.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    m.wait_connections(1)
    m.kill(signal.SIGKILL)
    m.wait_exit()
    client.send(b"\r\n")
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"hello\n")
    worker.wait_end()


def test_not_longer_than_five_seconds(ready):
    """Without a master there is nobody with a stop_timeout: a client that never ends its request holds them for 5 s."""
    m = ready('workers: { count = 1; stop_timeout = "1h"; };\nhttp: { request_timeout = "1h"; };')
    (worker,) = m.worker_processes()
    client = m.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    m.wait_connections(1)
    began = time.monotonic()
    m.kill(signal.SIGKILL)
    m.wait_exit()
    worker.wait_end()
    assert time.monotonic() - began < 5 + DEADLINE / 4


def test_sigkill_while_starting(start):
    """A worker that has not got ready goes as well."""
    m = start(worker="wait_for_ever()\n")
    m.wait_status("Starting: 0/2 workers ready")
    workers = m.worker_processes()
    assert len(workers) == 2
    m.kill(signal.SIGKILL)
    m.wait_exit()
    for worker in workers:
        worker.wait_end()
