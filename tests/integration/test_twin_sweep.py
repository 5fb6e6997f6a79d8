# SPDX-License-Identifier: MIT
"""A worker that dies at any point of a request, or of taking over from another one, is not noticed by its client.

twin-stepper kills at one point after the other, with ptrace(2): nothing in the worker helps it. By default a few points of
each scenario are tried, within a minute; MUSTER_TWIN_SWEEP=full tries all of them, which takes hours. MUSTER_TWIN_SEED
repeats a choice.
What fails is told with the options by which twin-stepper goes to that point alone, and with the functions it was in.
"""

import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import pathlib

import pytest

from module_harness import MODULES
from worker_harness import BINARY, BUILD_DIR, CELL_SIZE, READY, Worker

STEPPER = BUILD_DIR / "tests/integration/twin-stepper"
FULL = os.environ.get("MUSTER_TWIN_SWEEP") == "full"
SEED = int(os.environ.get("MUSTER_TWIN_SEED", random.randrange(1 << 30)))
KILLS = 3  # of a sweep, unless it is all
FIRSTS = 6  # points at which the worker is killed before its successor is, if it is all
SIZES = {"tiny": 10, "small": 1000, "8k": 8192, "64k": 65536, "10m": 10 << 20}
EFFECTS_SIZE = 65536 * 24  # modules/effects.h
SMALL_BUFFER = 8192  # so that the worker has to wait for room

STATIC = [
    "get", "pipeline", "file-64k", "file-10m", "accept", "silent-accept", "fresh", "crossing", "half-closed", "half-closed-file",
    "fragments", "ranges",
]
MODULE = ["keyed", "plain", "parted", "large", "chunked", "expecting", "stream", "unmarked", "later"]
PROXY = ["proxy", "proxy-parted"]
LONG = ["file-10m", "large"]  # to go through one instruction after the other

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="twin-stepper reads instructions of x86-64")


def is_sanitized():
    return b"__asan_init" in BINARY.read_bytes() or b"__ubsan_" in BINARY.read_bytes()


@pytest.fixture(scope="module", autouse=True)
def tracing():
    """A process that does not descend from the one that traces, like a worker."""
    with subprocess.Popen(["sleep", "600"]) as stranger:
        allowed = subprocess.run([str(STEPPER), f"--probe={stranger.pid}"]).returncode == 0
        stranger.kill()
    if not allowed:
        pytest.skip("ptrace(2) is not permitted")
    if is_sanitized() and not FULL:
        pytest.skip("a sanitizer adds too many instructions to go through")


def pattern(size):
    """The formula of twin-script.c."""
    period = bytes(((j * j * 31 + j * 7 + 3) & 0xFFFFFFFF) >> 3 & 0xFF for j in range(65521))
    return (period * (size // len(period) + 1))[:size]


@pytest.fixture(scope="module")
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="muster-"))
    for name, size in SIZES.items():
        (path / name).write_bytes(pattern(size))
    (path / "effects").write_bytes(bytes(EFFECTS_SIZE))
    yield path
    shutil.rmtree(path)


class Slot:
    """A worker for one scenario; another one follows when it has ended."""

    def __init__(self, folder, scenario, *options):
        self.scenario, self.effects = scenario, folder / "effects"
        if scenario in STATIC:
            options = (*options, "--file-cache=0") if scenario == "ranges" else options
        else:
            options = (*options, f"--module={MODULES / 'stepped.so'}", *(["--proxy-protocol"] if scenario in PROXY else []))
        self.arguments = (str(folder), *options)
        self.worker = None

    def __enter__(self):
        self.worker = Worker(*self.arguments, environment={"MUSTER_TEST_EFFECTS": str(self.effects)}).wait_state(READY)
        if self.scenario != "file-10m":
            self.worker.listeners[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        return self

    def __exit__(self, *exc):
        self.worker.close()

    def step(self, *options):
        """The account, and the failures."""
        w = self.worker
        command = [
            STEPPER, f"--port={w.address[1]}", f"--keeper={w.pid}", f"--board={w.board}", f"--cell={w.index * CELL_SIZE}",
            f"--scenario={self.scenario}", f"--seed={SEED}", f"--place={random.randrange(65536)}", *options,
        ]
        if self.scenario not in STATIC:
            command.append(f"--effects={self.effects}")
        done = subprocess.run([str(c) for c in command], pass_fds=[w.board], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines and "kills" in lines[-1], f"{done.stderr} {lines}"
        for line in lines:
            print(json.dumps(line))
        return lines[-1], lines[:-1]


def function_names(addresses):
    if not addresses or not shutil.which("addr2line"):
        return addresses
    return subprocess.run(
        ["addr2line", "-f", "-s", "-p", "-e", str(BINARY), *addresses], stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()


def described(failures):
    text = [f"seed {SEED}"]
    for f in failures:
        places = "\n        ".join(function_names(f.pop("at", [])))
        text.append(f"{f}\n        {places}")
    return "\n".join(text)


def sweep(slot, *options, kills=None):
    """All points, or about so many; the last one of its target."""
    account, failures = slot.step(*options, *([f"--kills={kills}"] if kills else []))
    assert not failures, described(failures)
    assert account["complete"]
    return account["last"]


def sweep_all(slot):
    n_calls = sweep(slot, "--mode=syscall")
    sweep(slot, "--mode=store")
    for first in sorted({1 + i * n_calls // FIRSTS for i in range(FIRSTS)}):
        for mode in ("syscall", "store"):
            sweep(slot, f"--mode={mode}", "--target=successor", f"--first={first}")


def sweep_some(slot, chosen):
    """What takes longest is left out: one instruction after the other of a whole take-over."""
    n_calls = sweep(slot, "--mode=syscall", kills=KILLS)
    first = chosen.randint(1, max(1, n_calls // 2))  # there may be less of them the next time
    if slot.scenario in LONG or chosen.random() < 0.5:
        sweep(slot, "--mode=syscall", "--target=successor", f"--first={first}", kills=1)
    else:
        sweep(slot, "--mode=store", kills=1)


@pytest.mark.parametrize("scenario", STATIC + MODULE + PROXY)
def test_sweep(folder, scenario):
    """The worker that the client has begun to talk to, and then the one that takes over from it."""
    with Slot(folder, scenario) as slot:
        if FULL:
            sweep_all(slot)
        else:
            sweep_some(slot, random.Random(f"{SEED} {scenario}"))


def test_without_a_twin_it_is_noticed(folder):
    """So twin-stepper does hit, and its client does look."""
    for point in (1, 6, 12):
        with Slot(folder, "get", "--no-twin") as slot:
            account, failures = slot.step("--mode=syscall", f"--point={point}")
            assert account["ended"] and account["kills"] == 1 and len(failures) == 1
            assert slot.worker.wait_exit() == -signal.SIGKILL
