# SPDX-License-Identifier: MIT
"""A module that dies of a signal is named, with the request; the other workers serve, and the slot is filled again."""

import contextlib
import fcntl
import os
import pathlib
import re
import select
import signal

import pytest

import module_harness
from module_harness import MODULES, ModuleWorker, connected, send_request
from worker_harness import READY

NAME = f"module deeds ({MODULES}/deeds.so): "
DEATHS = {
    "/segv?a=b": (signal.SIGSEGV, r"SIGSEGV at 0x10 \(deeds.so\+0x[0-9a-f]+\) while it answered GET /segv\?a=b"),
    "/abort": (signal.SIGABRT, r"SIGABRT while it answered GET /abort"),
    "/overflow": (signal.SIGSEGV, r"SIGSEGV at 0x[0-9a-f]+ \(deeds.so\+0x[0-9a-f]+\) while it answered GET /overflow"),
    "/offload-segv": (signal.SIGSEGV, r"SIGSEGV at 0x10 \(deeds.so\+0x[0-9a-f]+\) in the work of muster_offload\(\)"),
    "/event-segv": (signal.SIGSEGV, r"SIGSEGV at 0x10 \(deeds.so\+0x[0-9a-f]+\) in a handler of its event loop"),
    "/thread": (
        signal.SIGABRT,
        r"muster_http_respond\(\) was called from another thread than the loop's in the work of muster_offload\(\)",
    ),
    "/event-thread": (
        signal.SIGABRT,
        r"muster_http_event\(\) was called from another thread than the loop's in the work of muster_offload\(\)",
    ),
}


def deeds():
    """Its death is the end: no twin takes over."""
    return module_harness.deeds("--no-twin")


@pytest.mark.parametrize("target", DEATHS)
def test_last_words(target):
    """On stderr and on the board; the exit status is the signal's."""
    signo, words = DEATHS[target]
    with deeds() as w, connected(w) as client:
        send_request(client, target)
        assert w.wait_exit() == -signo
        assert re.fullmatch(re.escape(NAME) + words + "\n", w.stderr())
        assert w.stderr().startswith(w.reason())


def test_long_target_is_cut():
    with deeds() as w, connected(w) as client:
        send_request(client, "/segv?" + "x" * 5000)
        assert w.wait_exit() == -signal.SIGSEGV
        assert w.stderr().count("\n") == 1 and w.stderr().endswith(" GET /segv?" + "x" * 86 + "\n")


def test_signal_from_outside():
    with deeds() as w:
        w.text("/")
        w.kill(signal.SIGBUS)
        assert w.wait_exit() == -signal.SIGBUS
        assert re.fullmatch(re.escape(NAME) + r"SIGBUS from process \d+\n", w.stderr())


def test_child_of_the_module_dies():
    """Its end is not that of the worker, of which nothing is said."""
    with deeds() as w:
        assert w.text("/fork-abort") == str(int(signal.SIGABRT))
        assert (w.reason(), w.stderr()) == ("", "")


def fill(path):
    """The pipe takes nothing more."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x" * select.PIPE_BUF)
    os.close(fd)


@pytest.mark.parametrize(("target", "signo"), [("/segv", signal.SIGSEGV), ("/abort", signal.SIGABRT)])
def test_two_threads_die_at_once(target, signo):
    """The second one while the first one is about to speak: its words come whole, and the exit status is its own."""

    def second_died():
        with contextlib.suppress(FileNotFoundError):
            status = pathlib.Path(f"/proc/{w.pid}/task/{w.pid}/status").read_text()
            (blocked,) = re.findall(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)
            return int(blocked, 16) & 1 << (signo - 1)
        return True

    def has_ended():
        return select.select([w.pidfd], [], [], 0)[0]

    with deeds() as w, connected(w) as first, connected(w) as second:
        fill(f"/proc/{w.pid}/fd/2")
        send_request(first, "/offload-segv")
        w.wait_until(w.reason)
        send_request(second, target)
        w.wait_until(lambda: has_ended() or second_died())
        w.stderr()  # makes room
        assert w.wait_exit() == -signal.SIGSEGV
        assert re.fullmatch("x*" + re.escape(NAME) + DEATHS["/offload-segv"][1] + "\n", w.stderr())


class JournalWorker(ModuleWorker):
    """Stderr is a stream of the journal's to it, of which each read(2) returns what was written in one call."""

    def environment(self):
        fcntl.fcntl(self.stderr_fd, fcntl.F_SETFL, os.O_DIRECT)
        st = os.fstat(self.stderr_fd)
        return {**super().environment(), "JOURNAL_STREAM": f"{st.st_dev}:{st.st_ino}"}


def test_last_words_in_the_journal():
    """What other threads say cannot come between the priority and the words."""
    with JournalWorker(MODULES / "deeds.so", "--no-twin").wait_state(READY) as w, connected(w) as client:
        send_request(client, "/abort")
        assert w.wait_exit() == -signal.SIGABRT
        assert os.read(w.said_fd, 4096).decode() == f"<2>{NAME}{DEATHS['/abort'][1]}\n"


APP = f'kind = "module"; module = "{MODULES}/deeds.so";'
ALONE = 'workers: { count = 2; twin = false; soak = "20ms"; start_timeout = "1min"; };'


def test_slot_is_filled_again(ready):
    m = ready(ALONE, app=APP)
    before = {p.pid for p in m.worker_processes()}
    with contextlib.closing(m.connect()) as client:
        send_request(client, "/segv")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
    with contextlib.closing(m.connect()) as client:
        assert client.request("/").body == b"hello\n"
    m.wait_until(lambda: len(set(p.pid for p in m.worker_processes()) - before) == 1 and m.slots() == [1, 2], "the slot is filled")
    log = m.stderr()
    assert re.search(r"Worker \d \(pid \d+\) was killed by signal 11, SIGSEGV[^:]*: " + re.escape(NAME[:80]), log)
    assert log.count("while it answered GET /segv") >= 1


def test_words_of_each_that_was_taken_over_from(ready):
    """Three processes die of the request, each with its own words, and the fourth refuses it. The worker has not ended."""
    m = ready('workers: { count = 1; start_timeout = "1min"; };', app=APP)
    (before,) = m.worker_processes()
    with contextlib.closing(m.connect()) as client:
        assert client.request("/").body == b"hello\n"
        assert client.request("/segv").status == 500
    with contextlib.closing(m.connect()) as client:
        assert client.request("/").body == b"hello\n"
    words = re.compile(r"Worker 1 \(pid (\d+)\) was killed by signal 11, SIGSEGV[^:]*: " + re.escape(NAME) + DEATHS["/segv?a=b"][1][:12] + ".*; taken over\\.\n")
    m.wait_until(lambda: len(words.findall(m.stderr())) == 3, "three deaths")
    assert len(set(words.findall(m.stderr()))) == 3
    assert [w.pid for w in m.worker_processes()] == [before.pid]


def test_module_that_hangs_is_killed_by_the_watchdog(ready):
    m = ready(ALONE.replace("twin = false;", 'twin = false; watchdog = "300ms";'), app=APP)
    with contextlib.closing(m.connect()) as client:
        send_request(client, "/hang")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
    m.wait_until(lambda: "did not react for 300ms" in m.stderr(), "the watchdog")
    with contextlib.closing(m.connect()) as client:
        assert client.request("/").body == b"hello\n"


def test_request_in_which_all_hang(ready):
    """Three hang in it, one after the other, and are found; the fourth refuses it. Other connections are served."""
    m = ready('workers: { count = 1; watchdog = "1s"; start_timeout = "1min"; };', app=APP)
    (before,) = m.worker_processes()
    with contextlib.closing(m.connect()) as client, contextlib.closing(m.connect()) as other:
        assert other.request("/").body == b"hello\n"
        assert client.request("/hang").status == 500
        assert other.request("/").body == b"hello\n"
    m.wait_until(lambda: m.stderr().count(" was killed: it did not react for 1s; taken over.") == 3, "three deaths")
    assert [w.pid for w in m.worker_processes()] == [before.pid]
