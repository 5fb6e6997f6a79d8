# SPDX-License-Identifier: MIT
"""A worker gone mad may write anything to the shared memory, and ring without end: the master lives, and the cost is bounded."""

import contextlib
import os
import signal
import time

MAD = """
import random
if SLOT == 2:
    random.seed(os.getpid())
    set_state(READY)
    open(os.environ["GATE"]).read()
    while True:
        board[:] = random.randbytes(len(board)) if random.random() < 0.5 else bytes([random.choice((0, 1, 2, 255))]) * len(board)
        for _ in range(200):
            ring()
real(REAL)
"""

RINGING = """
if SLOT == 2:
    set_state(READY)
    open(os.environ["GATE"]).read()
    while True:
        ring()
real(REAL)
"""

ALL_STATES = """
if SLOT == 2:
    set_state(READY)
    open(os.environ["GATE"]).read()
    for state in (0, 1, 2, 3, 255, 2**31, 2**32 - 1, 0, 2, 1, 2, 0):
        for cell in range(0, len(board), CELL_SIZE):
            board[cell : cell + 4] = struct.pack("=I", state)
        ring()
        time.sleep(0.01)
    wait_for_ever()
real(REAL)
"""


def start_mad(ready, tmp_path, script, config=""):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    m = ready(config, worker=script, environment={"GATE": str(gate)}, watchdog_usec=1_000_000)
    with open(gate, "w"):
        pass
    os.unlink(gate)
    return m


def check_alive(m, seconds):
    """It pings systemd and serves for so long; returns the CPU time it took, per second."""
    began, cpu = time.monotonic(), m.process.cpu_seconds()
    while time.monotonic() - began < seconds:
        m.wait_message("WATCHDOG=1")
    used = (m.process.cpu_seconds() - cpu) / (time.monotonic() - began)
    assert not m.process.ended()
    return used


def test_random_bytes(ready, tmp_path):
    """The whole board is overwritten again and again: states, counters, reasons of all workers."""
    m = start_mad(ready, tmp_path, MAD, 'workers: { count = 2; stop_timeout = "500ms"; };')
    assert check_alive(m, 3) < 0.5
    assert m.get().status == 200
    for text in m.statuses():
        assert text.isprintable()
    m.kill()
    assert m.wait_exit() == 0


def test_all_states(ready, tmp_path):
    """Every worker is said to be in every state, known or not, in any order."""
    m = start_mad(ready, tmp_path, ALL_STATES, 'workers: { count = 2; stop_timeout = "500ms"; };')
    check_alive(m, 2)

    def answered():
        with contextlib.suppress(EOFError, ConnectionError):  # of one that was said to be going, and is killed for it
            return m.get().status == 200

    m.wait_until(answered, "an answer")
    m.kill()
    assert m.wait_exit() == 0


def test_ringing_without_end(ready, tmp_path):
    """A bell that never stops costs little, and does not keep the master from its other duties."""
    m = start_mad(ready, tmp_path, RINGING)
    assert check_alive(m, 3) < 0.3
    # the new one of slot 2 would wait at the gate, which is gone: so this reload fails, and is answered
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    m.wait_message("READY=1")
    m.kill()
    assert m.wait_exit() == 0
