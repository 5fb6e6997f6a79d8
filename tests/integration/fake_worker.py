# SPDX-License-Identifier: MIT
"""What a stand-in for muster-worker is made of, for tests that need one that misbehaves. See Master.worker_dir()."""

import ctypes
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
CELL_SIZE, BEATS_OFFSET, REASON_OFFSET, REASON_SIZE = 1024, 24, 32, 184
WORKER_OFFSET, TWIN_OFFSET, TAKEOVERS_OFFSET, N_DEATHS_OFFSET, DEATHS_OFFSET, DEATH_SIZE, DEATHS = 216, 220, 224, 228, 232, 192, 4
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


def wait_for_ever():
    while True:
        signal.pause()


# What a keeper says.


def set_worker(pid):
    struct.pack_into("=i", board, CELL * CELL_SIZE + WORKER_OFFSET, pid)
    ring()


def set_twin(pid):
    struct.pack_into("=i", board, CELL * CELL_SIZE + TWIN_OFFSET, pid)
    ring()


def add_takeover():
    start = CELL * CELL_SIZE + TAKEOVERS_OFFSET
    (n,) = struct.unpack_from("=I", board, start)
    struct.pack_into("=I", board, start, n + 1)


def add_death(pid, status, reason=""):
    """@status as wait() gives it."""
    start = CELL * CELL_SIZE + N_DEATHS_OFFSET
    (n,) = struct.unpack_from("=I", board, start)
    place = CELL * CELL_SIZE + DEATHS_OFFSET + n % DEATHS * DEATH_SIZE
    struct.pack_into(f"=ii{REASON_SIZE}s", board, place, pid, status, reason.encode())
    struct.pack_into("=I", board, start, n + 1)
    ring()


def child(f):
    """The pid of a process that runs @f, and dies with this one."""
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if os.getppid() == parent:
            f()
        os._exit(0)
    return pid


class Keeper:
    """A stand-in for the keeper of a worker with a twin: children that @serve, one after the other."""

    def __init__(self, serve=wait_for_ever, abort=signal.SIGABRT):
        self.serve, self.abort, self.retiring = serve, abort, False
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM, signal.SIGABRT])
        self.worker, self.twin = child(serve), child(wait_for_ever)
        set_twin(self.twin)
        set_worker(self.worker)

    def take_over(self, status):
        """The twin becomes the worker: here another process does."""
        add_death(self.worker, status, "last words")
        os.kill(self.twin, signal.SIGKILL)
        os.waitpid(self.twin, 0)
        self.worker, self.twin = child(self.serve), child(wait_for_ever)
        set_twin(self.twin)
        set_worker(self.worker)
        add_takeover()

    def reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                sys.exit(0)
            if pid == 0:
                return
            if pid == self.worker and self.retiring:
                sys.exit(0)
            if pid == self.worker:
                self.take_over(status)

    def run(self):
        while True:
            signo = signal.sigwait([signal.SIGCHLD, signal.SIGTERM, signal.SIGABRT])
            if signo == signal.SIGTERM:
                self.retiring = True
            if signo == signal.SIGABRT and self.abort:
                os.kill(self.worker, self.abort)
            if signo == signal.SIGTERM:
                os.kill(self.worker, signal.SIGTERM)
            self.reap()


def real(path):
    """Becomes the real worker."""
    os.execv(path, [path, *sys.argv[1:]])
