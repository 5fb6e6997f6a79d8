# SPDX-License-Identifier: MIT
"""A first start that fails is told truthfully, and leaves nothing behind."""

import os
import re
import tempfile

from lifecycle import begin


def check_failed(m, reason):
    """@reason: a regular expression."""
    assert m.wait_exit() == 1
    assert re.fullmatch(f"Failed to start: {reason}", m.statuses()[-1])
    assert re.search(f'The app "web" cannot start: {reason}', m.stderr())
    assert not any("READY=1" in text.split("\n") for _, text in m.messages)
    assert m.children() == []


def test_missing_directory(start):
    """Exit 1; the worker's own reason is in STATUS and on stderr."""
    m = start(directory="/nonexistent/site")
    check_failed(m, "worker [12] exited with status 1: Failed to open the directory /nonexistent/site: No such file or directory")


def test_worker_that_cannot_be_executed(start):
    """No program at all: execve's error is told."""
    m = start(environment={"MUSTER_LIBEXECDIR": "/nonexistent"})
    check_failed(m, "worker 1 cannot be started: No such file or directory")


def test_worker_that_is_killed(start):
    """A crash before it was ever ready is a failed start."""
    m = start(worker="os.kill(os.getpid(), signal.SIGSEGV)\n")
    check_failed(m, "worker [12] was killed by signal 11, SIGSEGV(, and dumped core)?")


def test_worker_that_says_nothing(start):
    """An exit without a reason is told with its status."""
    m = start(worker="sys.exit(7)\n")
    check_failed(m, "worker [12] exited with status 7")


def test_one_of_several(start):
    """The others are ready already: they go again, and the start has failed."""
    m = start(worker="if SLOT == 3:\n    set_reason('out of luck')\n    sys.exit(1)\nreal(REAL)\n", workers=3)
    check_failed(m, "worker 3 exited with status 1: out of luck")


def test_start_timeout(start):
    """A worker that does not get ready in time is killed, and the start has failed."""
    m = start('workers: { count = 1; start_timeout = "200ms"; };', worker="wait_for_ever()\n")
    check_failed(m, "worker 1 was killed: not ready within 200ms")
    assert "did not get ready within 200ms, killing it." in m.stderr()


def test_start_timeout_of_the_second(start, tmp_path):
    """Every worker has its time-out, not only the first."""
    m = begin(start, tmp_path, 'workers: { count = 3; start_timeout = "4s"; };', "never-ready@worker=2")
    check_failed(m, "worker 2 was killed: not ready within 4s")


def test_deaf_to_sigterm(start):
    """A failed start does not wait for ever for a worker that will not go."""
    m = start(
        'workers: { count = 2; stop_timeout = "200ms"; };',
        worker="if SLOT == 2:\n    sys.exit(1)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nset_state(READY)\nwait_for_ever()\n",
    )
    check_failed(m, "worker 2 exited with status 1")


def test_unix_path_is_removed(start):
    """What the master bound itself goes away with a failed start too."""
    with tempfile.TemporaryDirectory() as folder:
        m = start(f'listen: ( {{ address = "{folder}/s"; }} );', sockets=[], worker="sys.exit(1)\n")
        check_failed(m, "worker [12] exited with status 1")
        assert os.listdir(folder) == []
