# SPDX-License-Identifier: MIT
"""Kills processes of slots that have a twin, while a client checks every byte. What counts as a failure is told in
twin/tally.h, what the client can do at the top of twin/client.c.

    with TwinClient(w.address[1], folder) as client, Killer(WorkerSlots(w)) as killer:
        killer.wait_takeovers(20)
    client.check()                 # not one request has failed
"""

import contextlib
import json
import os
import pathlib
import random
import select
import signal
import struct
import subprocess
import sys
import threading
import time

from module_harness import MODULES, ModuleWorker
from worker_harness import BUILD_DIR, CELL_SIZE, READY, Worker

CLIENT = BUILD_DIR / "tests/integration/twin-client"
MODULE = MODULES / "twin.so"
PIDS = struct.Struct("=iiII")  # worker_pid, twin_pid, takeovers, n_deaths of a BoardCell
PIDS_OFFSET = 216
DEATH_OFFSET, DEATH_SIZE, DEATHS = PIDS_OFFSET + PIDS.size, 192, 4
SEED = int(os.environ.get("MUSTER_TWIN_SEED", time.time_ns() % 10000))
# The machine's own stalls are not counted, but those of the processes that are watched cannot all be told apart.
STALL_MSEC = int(os.environ.get("MUSTER_TWIN_STALL", 5000))
PATIENCE = 120  # seconds
# Keyed requests that are answered 503, as they have not got their name yet: the moment that muster-twin(7) speaks of is
# short beside the time between two kills.
NAMELESS = 2


def make_folder(tmp_path):
    """With the files to be asked for."""
    folder = tmp_path / "twin"
    folder.mkdir()
    subprocess.run([CLIENT, f"--make={folder}"], check=True, timeout=PATIENCE)
    return folder


def static_worker(folder, *options, **kwargs):
    return Worker(folder, *options, **kwargs).wait_state(READY)


class TalkativeWorker(ModuleWorker):
    """Nobody reads what it says while it is killed so often: more than fits into a pipe."""

    def _open_stderr(self):
        fd = os.memfd_create("stderr")
        return fd, os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND)


def module_worker(folder, *options, environment=None, **kwargs):
    return TalkativeWorker(MODULE, *options, environment={"TWIN_FOLDER": str(folder), **(environment or {})}, **kwargs).wait_state(READY)


class Report:
    """What the client found: `answers`, `failures`, `kinds`, `failed`, `first` and so on, as in twin/tally.c."""

    def __init__(self, line):
        self.__dict__.update(json.loads(line))

    def __str__(self):
        failed = ", ".join(f"{n} {kind}" for kind, n in self.failed.items() if n) or "none"
        effects = getattr(self, "effects", None)
        lines = [f"seed {self.seed}: {self.answers} answers over {self.connections} connections, failed: {failed}; effects: {effects}"]
        lines += [f"longest stall {self.max_stall_ms} ms (of the machine: {self.machine_stall_ms} ms), {self.unknown} unknown"]
        lines += [f"  {told['at']:.6f}: {told['failure']}: {told['kind']} {told['id']} at {told['offset']}: {told['detail']}" for told in self.first]
        return "\n".join(lines)


class TwinClient:
    def __init__(self, address, folder=None, **options):
        """@folder: of the effects; None: there are none. @options: of the program; True: without a value."""
        options = {"seed": SEED, "stall": STALL_MSEC, "mix": os.environ.get("MUSTER_TWIN_MIX"), **options}
        if folder:
            options["effects"] = folder
        argv = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items() if value is not None]
        self.process = subprocess.Popen([CLIENT, str(address), *argv], stdout=subprocess.PIPE)
        self.report = None

    def stop(self, timeout=PATIENCE):
        if self.report is None:
            self.process.terminate()
            self.wait(timeout)
        return self.report

    def wait(self, timeout=PATIENCE):
        """Until it ends by itself."""
        out, _ = self.process.communicate(timeout=timeout)
        assert out, f"the client has ended with {self.process.returncode}"
        self.report = Report(out)
        print(self.report)
        return self.report

    def check(self, answers=1):
        report = self.stop()
        assert report.failures == 0, str(report)
        assert report.answers >= answers
        assert getattr(report, "effects", {"nameless": 0})["nameless"] <= NAMELESS, str(report)
        return report

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.stop()
        finally:
            self.process.kill()
            self.process.wait()


class Slot:
    """A keeper and its cell."""

    def __init__(self, read, cell, keeper=None):
        self.read, self.offset, self.keeper = read, cell * CELL_SIZE, keeper

    def _pids(self):
        return PIDS.unpack(self.read(PIDS.size, self.offset + PIDS_OFFSET))

    @property
    def worker(self):
        return self._pids()[0]

    @property
    def twin(self):
        return self._pids()[1]

    @property
    def takeovers(self):
        return self._pids()[2]

    @property
    def n_deaths(self):
        return self._pids()[3]

    @property
    def state(self):
        return struct.unpack("=I", self.read(4, self.offset))[0]

    @property
    def requests(self):
        return struct.unpack("=Q", self.read(8, self.offset + 16))[0]

    def death(self, number):
        """pid, wait status, reason"""
        data = self.read(DEATH_SIZE, self.offset + DEATH_OFFSET + number % DEATHS * DEATH_SIZE)
        pid, status = struct.unpack_from("=ii", data)
        return pid, status, data[8:].split(b"\0", 1)[0].decode()


def worker_slots(w):
    """That of a worker of the worker harness."""
    slot = Slot(lambda n, at: os.pread(w.board, n, at), w.index, w.pid)
    return lambda: [slot]


def master_slots(m):
    """Those of a musterd, as they are at any time."""
    board = m.board()

    def find():
        keepers = {w.pid for w in m.worker_processes()}
        slots = [Slot(lambda n, at: board[at : at + n], cell) for cell in range(len(board) // CELL_SIZE)]
        found = []
        for slot in slots:
            keeper = parent(slot.worker)
            if keeper in keepers:
                slot.keeper = keeper
                found.append(slot)
        return found

    return find


def parent(pid):
    """0: there is no such process."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) if pid > 0 else 0
    except (FileNotFoundError, ProcessLookupError):
        return 0


def kill_child(keeper, pid, signo=signal.SIGKILL):
    """True if it was there to be killed, and nobody else's."""
    if pid <= 0:
        return False
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if parent(pid) != keeper:
            return False
        signal.pidfd_send_signal(fd, signo)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


class Killer:
    """At random times, @rate of them a second on average. @who: worker, twin, both, any; @signals: one of them each time.
    @slots: a function that returns those to be struck."""

    def __init__(self, slots, who="worker", rate=30, signals=(signal.SIGKILL,), seed=SEED):
        self.slots, self.who, self.rate, self.signals = slots, who, rate, signals
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.kills = []  # time, who, pid
        self.thread = threading.Thread(target=self._run)

    def _strike(self):
        slots = self.slots()
        if not slots:
            return
        slot = self.random.choice(slots)
        who = self.random.choice(["worker", "worker", "twin", "both"]) if self.who == "any" else self.who
        victims = [("worker", slot.worker), ("twin", slot.twin)]
        if self.random.random() < 0.5:
            victims.reverse()
        for role, pid in victims:
            if who in (role, "both") and kill_child(slot.keeper, pid, self.random.choice(self.signals)):
                self.kills.append((time.monotonic(), role, pid))

    def _run(self):
        while not self.stopping.wait(self.random.expovariate(self.rate)):
            self._strike()

    def takeovers(self):
        return sum(slot.takeovers for slot in self.slots())

    def wait_until(self, condition, what, patience=PATIENCE):
        end = time.monotonic() + patience
        while not condition():
            assert self.thread.is_alive(), "the killer has failed"
            assert time.monotonic() < end, f"{what}: did not happen within {patience} s"
            select.select([], [], [], 0.01)

    def wait_takeovers(self, n):
        self.wait_until(lambda: self.takeovers() >= n, f"{n} take-overs")

    def wait_kills(self, n):
        self.wait_until(lambda: len(self.kills) >= n, f"{n} kills")

    def stop(self):
        self.stopping.set()
        self.thread.join()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()
        print(f"{len(self.kills)} kills", file=sys.stdout)


@contextlib.contextmanager
def killed(slots, client, **options):
    """Kills, and then nothing has failed."""
    with client, Killer(slots, **options) as killer:
        yield killer
        killer.stop()
        client.check()
