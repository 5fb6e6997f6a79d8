# SPDX-License-Identifier: MIT
"""The example of libmuster's cluster: one worker per CPU, replaced before they go, gone with their primary."""

import collections
import contextlib
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import time

import pytest

from harness import BUILD_DIR, DEADLINE, Process, wait_readable
from lifecycle import is_stopped

TOP = pathlib.Path(__file__).resolve().parents[2]
SOURCE = TOP / "packaging/examples/cluster.c"
PROGRAM = BUILD_DIR / "packaging/examples/cluster"
WORKERS = 2  # CPUs, where there are so many

READY = re.compile(r"worker (\d+) is ready")
RETIRING = re.compile(r"worker (\d+) wants to go: (.*)")
ENDED = re.compile(r"worker (\d+) \(pid (\d+)\) ended: (\w+) (\d+)")


class Example:
    """./cluster 0, whose lines are read as they come."""

    def __init__(self, cpus, program=PROGRAM, environment=None):
        r, w = os.pipe()
        self.output, self.buffer, self.lines = r, b"", collections.deque()
        env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG") or k.endswith("SAN_OPTIONS")}
        self.process = subprocess.Popen(
            [program, "0"], stdin=subprocess.DEVNULL, stdout=w, env={**env, **(environment or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        os.close(w)
        self.primary = Process(self.process.pid)
        self.n = len(cpus)

    def line(self):
        """The next one."""
        while not self.lines:
            wait_readable([self.output], "a line of the example")
            data = os.read(self.output, 65536)
            assert data, "the example closed its output"
            *lines, self.buffer = (self.buffer + data).split(b"\n")
            self.lines.extend(line.decode() for line in lines)
        return self.lines.popleft()

    def expect(self, pattern):
        line = self.line()
        match = pattern.fullmatch(line)
        assert match, f"{line!r} is not {pattern.pattern!r}"
        return match.groups()

    def rest(self):
        """All lines up to the end of the output: every process that could write there is gone."""
        while True:
            wait_readable([self.output], "the end of the output")
            data = os.read(self.output, 65536)
            if not data:
                assert self.buffer == b""
                return list(self.lines)
            *lines, self.buffer = (self.buffer + data).split(b"\n")
            self.lines.extend(line.decode() for line in lines)

    def wait_ready(self):
        ids = sorted(int(self.expect(READY)[0]) for _ in range(self.n))
        assert ids == list(range(1, self.n + 1))
        self.address = ("127.0.0.1", self.port())
        return self

    def port(self):
        """What the kernel gave it: the local port of the listening socket among its descriptors."""
        mine = {target for target in self.primary.fds().values() if target.startswith("socket:[")}
        for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, *fields = line.split()
            if state == "0A" and f"socket:[{fields[5]}]" in mine:
                return int(local.rsplit(":", 1)[1], 16)
        raise AssertionError(f"no listening socket among {mine}")

    def get(self, target="/"):
        """(status line, id of the worker, its pid)"""
        with contextlib.closing(socket.create_connection(self.address, DEADLINE)) as client:
            client.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(4096), b"")).decode()
        match = re.fullmatch(r"HTTP/1\.0 (.*)\r\n\r\nworker (\d+), pid (\d+)\n", answer)
        assert match, answer
        return match.group(1), int(match.group(2)), int(match.group(3))

    def children(self):
        return pathlib.Path(f"/proc/{self.primary.pid}/task/{self.primary.pid}/children").read_text().split()

    def workers(self):
        return [Process(int(pid)) for pid in self.children()]

    def wait_workers(self):
        """Until there are as many as there are to be: one whose end was told may not be reaped yet."""
        end = time.monotonic() + DEADLINE
        while len(self.children()) != self.n:
            assert time.monotonic() < end, f"{len(self.children())} workers"
            select.select([self.primary.pidfd], [], [], 0.002)

    def replacement(self):
        """Slot, pid, how and number of one that ended, once the next one is ready. Its channel ends before it can be reaped:
        that may be first."""
        lines = [self.line(), self.line()]
        (ended,) = filter(None, map(ENDED.fullmatch, lines))
        (ready,) = filter(None, map(READY.fullmatch, lines))
        assert ready.group(1) == ended.group(1)
        return ended.groups()

    def close(self):
        workers = [] if self.process.poll() is not None else self.workers()
        for process in (self.primary, *workers):
            process.kill(signal.SIGKILL)
        self.process.wait(DEADLINE)
        for worker in workers:
            worker.wait_end()
        with contextlib.suppress(ChildProcessError):  # orphans that came to us
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        os.close(self.output)


@pytest.fixture
def example():
    """On as many CPUs as there are, two at most."""
    with contextlib.closing(Example(sorted(os.sched_getaffinity(0))[:WORKERS])) as e:
        yield e.wait_ready()


@pytest.fixture
def alone():
    """On one CPU: the one worker answers every request."""
    with contextlib.closing(Example(sorted(os.sched_getaffinity(0))[:1])) as e:
        yield e.wait_ready()


def test_one_worker_per_cpu(example):
    """As many as it may use, each an own process, and nobody else."""
    assert len(example.workers()) == example.n


def test_worker_alone(alone):
    (worker,) = alone.workers()
    assert alone.get() == ("200 OK", 1, worker.pid)
    assert alone.get() == ("200 OK", 1, worker.pid)


def test_all_workers_answer(example):
    """Each accepts from the one socket: whoever is left answers when the others are stopped."""
    workers = example.workers()
    pids = {worker.pid for worker in workers}
    answered = set()
    for worker in workers:
        others = [other for other in workers if other is not worker]
        for other in others:
            other.kill(signal.SIGSTOP)
        end = time.monotonic() + DEADLINE
        while not all(map(is_stopped, others)):  # until then it may accept
            assert time.monotonic() < end, "they do not stop"
            select.select([example.primary.pidfd], [], [], 0.002)
        status, _, pid = example.get()
        assert status == "200 OK" and pid in pids
        answered.add(pid)
        for other in others:
            other.kill(signal.SIGCONT)
    assert answered == pids


def test_fail(alone):
    """An error that a worker should not live on with: its replacement is there before it goes."""
    status, worker, old = alone.get("/fail")
    assert (status, worker) == ("500 Oops", 1)
    assert alone.expect(RETIRING) == ("1", "somebody asked for /fail")
    assert alone.expect(READY) == ("1",)
    assert alone.expect(ENDED) == ("1", str(old), "status", "0")
    status, worker, new = alone.get()
    assert (status, worker) == ("200 OK", 1) and new != old


def test_fail_again(alone):
    """After another short life there is a pause first, and somebody serves all the time."""
    alone.get("/fail")
    for pattern in RETIRING, READY, ENDED:
        alone.expect(pattern)
    _, _, old = alone.get("/fail")
    alone.expect(RETIRING)
    assert alone.get()[:2] == ("200 OK", 1)
    alone.expect(READY)
    assert alone.expect(ENDED) == ("1", str(old), "status", "0")


def test_killed_worker_is_replaced(example):
    victim = example.workers()[0]
    victim.kill(signal.SIGKILL)
    assert example.replacement()[1:] == (str(victim.pid), "signal", "9")
    example.wait_workers()
    assert example.get()[0] == "200 OK"


def test_terminate(example):
    """The workers first, the primary last, all of them well."""
    workers = example.workers()
    example.primary.kill(signal.SIGTERM)
    wait_readable([example.primary.pidfd], "the end of the primary")
    assert all(worker.ended() for worker in workers)
    assert example.process.wait(DEADLINE) == 0
    ended = [ENDED.fullmatch(line).groups() for line in example.rest()]
    assert sorted(int(pid) for _, pid, _, _ in ended) == sorted(worker.pid for worker in workers)
    assert {(how, number) for _, _, how, number in ended} == {("status", "0")}
    with pytest.raises(ConnectionRefusedError):
        example.get()


def test_terminated_during_replacement(alone):
    """A worker that waits for its replacement goes too, and nobody is left."""
    alone.get("/fail")
    alone.expect(RETIRING)
    alone.primary.kill(signal.SIGTERM)
    assert alone.process.wait(DEADLINE) == 0
    lines = [line for line in alone.rest() if not READY.fullmatch(line)]
    assert 1 <= len(lines) <= 2 and all(ENDED.fullmatch(line) for line in lines), lines


def test_killed_primary(example):
    """The workers do not outlive it; the end of the output says that nobody else does."""
    workers = example.workers()
    example.primary.kill(signal.SIGKILL)
    assert example.process.wait(DEADLINE) == -signal.SIGKILL
    for worker in workers:
        worker.wait_end()
        _, status = os.waitpid(worker.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0  # they heard of it, and went by themselves
    assert example.rest() == []


def test_terminated_worker(example):
    """It ends well by itself, and is replaced as any other."""
    victim = example.workers()[0]
    victim.kill(signal.SIGTERM)
    assert example.replacement()[1:] == (str(victim.pid), "status", "0")


def test_port_in_use():
    """It says by its status that it cannot serve, and leaves nobody behind."""
    with contextlib.closing(socket.create_server(("0.0.0.0", 0))) as taken:
        r = subprocess.run([PROGRAM, str(taken.getsockname()[1])], stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE)
    assert (r.returncode, r.stdout) == (1, b"")


def test_length():
    """A whole cluster, and still an example."""
    assert len(SOURCE.read_text().splitlines()) < 100


@pytest.mark.parametrize("compiler", ["cc", "gcc", "clang"])
def test_compiles_as_a_users(compiler, tmp_path):
    """With what is installed: the public headers and the shared library, and no warning."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    library = BUILD_DIR / "src/lib"
    if b"__asan_init" in (library / "libmuster.so").read_bytes():
        pytest.skip("a library with a sanitizer is no user's")
    shutil.copy(SOURCE, tmp_path)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libsystemd"], capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(
        [compiler, "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-O2", "cluster.c", "-o", "cluster",
         f"-I{TOP / 'src/include'}", f"-L{library}", "-lmuster", *flags],
        cwd=tmp_path, check=True, timeout=60,
    )
    program = Example(sorted(os.sched_getaffinity(0))[:1], tmp_path / "cluster", {"LD_LIBRARY_PATH": str(library)})
    with contextlib.closing(program):
        assert program.wait_ready().get()[0] == "200 OK"
