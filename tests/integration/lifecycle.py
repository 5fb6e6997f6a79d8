# SPDX-License-Identifier: MIT
"""lifecycle_worker in place of muster-worker: what it can be told is at the top of lifecycle_worker.c.

    life = Lifecycle(tmp_path)
    m = ready(environment=life.environment)
    m.get("/suicide")
"""

import contextlib
import json
import os
import pathlib
import select
import signal
import threading
import time

from harness import Process
from worker_harness import BUILD_DIR

PROGRAM = BUILD_DIR / "tests/integration/lifecycle_worker"
OTHERS = BUILD_DIR / "src/admin/muster-admin", BUILD_DIR / "src/exec/muster-exec"


class Lifecycle:
    def __init__(self, folder, mode=""):
        self.libexec = pathlib.Path(folder) / "lifecycle"
        self.libexec.mkdir()
        (self.libexec / "muster-worker").symlink_to(PROGRAM)
        for program in OTHERS:
            (self.libexec / program.name).symlink_to(program)
        self.mode_file = self.libexec / "mode"
        self.set_mode(mode)

    @property
    def environment(self):
        return {"MUSTER_LIBEXECDIR": str(self.libexec), "LIFECYCLE_MODE_FILE": str(self.mode_file)}

    def set_mode(self, mode):
        """For the workers that are started from now on."""
        new = self.mode_file.with_suffix(".new")
        new.write_text(mode)
        new.rename(self.mode_file)


def tell(m, command):
    """The body of the answer, as text, of whichever worker heard it."""
    answer = m.get(command)
    assert answer.status == 200, command
    return answer.body.decode().strip()


def grandchild(m, command="/fork"):
    return Process(int(tell(m, command)), m)


def is_stopped(process):
    try:
        return pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "Tt"
    except (FileNotFoundError, ProcessLookupError):  # it has just gone
        return False


def stop_others(m, pid):
    """Those that it has stopped."""
    others = []
    for w in (m.serving(w) for w in m.worker_processes() if w.pid != pid):
        if not is_stopped(w):
            others.append(w)
            w.kill(signal.SIGSTOP)
    m.wait_until(lambda: all(w.ended() or is_stopped(w) for w in others), "the stop of the others")
    return others


@contextlib.contextmanager
def connected(m, pid):
    """A connection to the worker with that pid: the others are stopped until it has accepted it. One that was started after that
    may be quicker, and is stopped then."""
    others = []
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(20):
                others += stop_others(m, pid)
                client = stack.enter_context(contextlib.closing(m.connect()))
                if m.worker_of(json.loads(client.request("/whoami").body)["pid"]) == pid:
                    break
            else:
                raise AssertionError(f"worker {pid} accepts no connection")
        finally:
            for w in others:
                w.kill(signal.SIGCONT)
        yield client


def begin(start, folder, config="", mode="", **kwargs):
    """A musterd (by one of the two fixtures) with such workers, whose mode is changed by m.life.set_mode()."""
    life = Lifecycle(folder, mode)
    environment = {**life.environment, **kwargs.pop("environment", {})}
    m = start(config, environment=environment, **kwargs)
    m.life = life
    return m


def gate(folder, name="gate"):
    """A FIFO for the mode gate=PATH. Opening it for writing takes until a worker stands at it, closing it lets it pass."""
    path = pathlib.Path(folder) / name
    os.mkfifo(path)
    return path


def pids(m):
    return set(m.children())


def wait_said(m, text, n=1):
    """Until the log has that text so many times."""
    m.wait_until(lambda: m.stderr().count(text) >= n, f"{text!r} in the log, {n} times")


def assert_always(m, start, since=0):
    """All STATUS from the one with that index on begin like this. Returns how many there are by now."""
    statuses = m.statuses()
    assert all(s.startswith(start) for s in statuses[since:]), statuses[since:]
    return len(statuses)


def elapse(m, seconds):
    """For what must not happen within a time: musterd is there all the while. On a slow machine it is longer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        m.statuses()
        assert not select.select([m.pidfd], [], [], min(0.05, seconds))[0], m.stderr()


class Asking:
    """Clients that ask without a pause, one with a connection for each request and one with a kept one, while the block
    runs. Every request is to be answered with 200."""

    def __init__(self, m):
        self.m = m
        self.stop = threading.Event()
        self.answers = 0
        self.failures = []
        self.threads = [threading.Thread(target=self._ask, args=(keep,)) for keep in (False, True)]

    def _ask(self, keep):
        while not self.stop.is_set():
            try:
                self._connection(keep)
            except Exception as e:
                self.failures.append(repr(e))
                return

    def _connection(self, keep):
        with contextlib.closing(self.m.connect()) as client:
            for i in range(50 if keep else 1):
                try:
                    answer = client.request("/", headers=[] if keep else ["Connection: close"])
                except (EOFError, ConnectionError) as e:
                    # It may be closed while it is idle, when this thread does not get to run for long.
                    if i > 0 and not client.buffer:
                        return
                    raise e
                assert answer.status == 200
                self.answers += 1
                if answer.closes or self.stop.is_set():
                    return

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        self.stop.set()
        for t in self.threads:
            t.join()
        if exc[0] is None:
            assert not self.failures and self.answers > 0, self.failures
