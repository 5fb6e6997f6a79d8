# SPDX-License-Identifier: MIT
"""What a stand-in for muster-worker is made of, for tests that need one that misbehaves. See Master.worker_dir()."""

import mmap
import os
import signal
import struct
import sys
import time

SLOT = int(os.environ["MUSTER_WORKER"])
GENERATION = int(os.environ["MUSTER_GENERATION"])
BOARD_FD = int(os.environ["MUSTER_BOARD_FD"])
BELL_FD = int(os.environ["MUSTER_BELL_FD"])
CELL = int(os.environ["MUSTER_BOARD_CELL"])
CELL_SIZE, BEATS_OFFSET, REASON_OFFSET, REASON_SIZE = 256, 24, 32, 192
STARTING, READY, DRAINING, LEAVING = 0, 1, 2, 3

board = mmap.mmap(BOARD_FD, os.fstat(BOARD_FD).st_size)


def ring():
    os.write(BELL_FD, struct.pack("=Q", 1))


def set_state(state):
    board[CELL * CELL_SIZE : CELL * CELL_SIZE + 4] = struct.pack("=I", state)
    ring()


def beat():
    start = CELL * CELL_SIZE + BEATS_OFFSET
    (n,) = struct.unpack_from("=Q", board, start)
    struct.pack_into("=Q", board, start, n + 1)


def set_reason(text):
    start = CELL * CELL_SIZE + REASON_OFFSET
    data = text.encode()[: REASON_SIZE - 1] + b"\0"
    board[start : start + len(data)] = data


def real(path):
    """Becomes the real worker."""
    os.execv(path, [path, *sys.argv[1:]])


def wait_for_ever():
    while True:
        signal.pause()
