# SPDX-License-Identifier: MIT
"""A module that dies of a signal is named, with the request; the other workers serve, and the slot is filled again."""

import contextlib
import re
import signal

import pytest

from module_harness import MODULES, connected, deeds, send_request

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
}


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


def test_slot_is_filled_again(ready):
    m = ready(app=f'kind = "module"; module = "{MODULES}/deeds.so";', workers=2)
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


def test_module_that_hangs_is_killed_by_the_watchdog(ready):
    m = ready('workers: { count = 2; watchdog = "300ms"; soak = "20ms"; start_timeout = "1min"; };',
                app=f'kind = "module"; module = "{MODULES}/deeds.so";')
    with contextlib.closing(m.connect()) as client:
        send_request(client, "/hang")
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
    m.wait_until(lambda: "did not react for 300ms" in m.stderr(), "the watchdog")
    with contextlib.closing(m.connect()) as client:
        assert client.request("/").body == b"hello\n"
