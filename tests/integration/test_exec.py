# SPDX-License-Identifier: MIT
"""muster-exec: becomes the program, or tells by its error descriptor why not."""

import errno
import os
import resource
import struct
import subprocess

from harness import MUSTER_EXEC


def run(*command, environment=None, identifier="web-1", error_fd=None):
    """Exit status, stdout, stderr, and what came out of the error pipe."""
    r, w = os.pipe()
    env = {"PATH": os.environ["PATH"], **(environment or {})}
    process = subprocess.Popen(
        [MUSTER_EXEC, identifier, str(w if error_fd is None else error_fd), *command],
        pass_fds=[w], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    os.close(w)
    out, err = process.communicate(timeout=20)
    with open(r, "rb") as f:
        told = f.read()
    return process.pid, process.returncode, out, err, told


def test_becomes_the_program():
    """Same pid, its arguments, its status; the error pipe ends without a byte."""
    pid, status, out, err, told = run("/bin/sh", "-c", 'echo $$ "$0" "$1"; exit 7', "zero", "a b")
    assert (status, out, err, told) == (7, f"{pid} zero a b\n", "", b"")


def test_error_pipe_ends_while_the_program_runs():
    """Success is told by the end of the pipe, and the program does not have the descriptor."""
    r, w = os.pipe()
    with subprocess.Popen([MUSTER_EXEC, "web-1", str(w), "/bin/cat"], pass_fds=[w], stdin=subprocess.PIPE) as process:
        os.close(w)
        with open(r, "rb") as f:
            assert f.read() == b""
        assert process.poll() is None  # cat waits for its input
        process.stdin.close()
        assert process.wait(20) == 0


def test_errno_is_told():
    """execve's errno as an int; exit 127; the log names the program."""
    for program, code in (("/nonexistent/x", errno.ENOENT), ("/", errno.EACCES), ("/dev/null/x", errno.ENOTDIR)):
        _, status, out, err, told = run(program)
        assert (status, out) == (127, "")
        assert struct.unpack("=i", told) == (code,)
        assert f"Failed to execute {program}: {os.strerror(code)}" in err


def test_limit_of_descriptors():
    """What the master raised for itself is not handed on, nor is the note of it."""
    command = ("/bin/sh", "-c", "ulimit -S -n; echo ${MUSTER_NOFILE-none}")
    _, _, out, _, _ = run(*command, environment={"MUSTER_NOFILE": "99"})
    assert out == "99\nnone\n"
    _, _, out, _, _ = run(*command, environment={"MUSTER_NOFILE": "nonsense"})
    assert out == f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]}\nnone\n"


def test_listen_pid():
    """LISTEN_PID becomes the program's own pid when there are sockets, and is left alone when there are none."""
    pid, _, out, _, _ = run("/bin/sh", "-c", "echo $LISTEN_PID", environment={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert out == f"{pid}\n"
    _, _, out, _, _ = run("/bin/sh", "-c", "echo ${LISTEN_PID-none}")
    assert out == "none\n"


def test_watchdog_pid():
    """WATCHDOG_PID likewise: of the program when it has a watchdog, whoever's it was; else as it was."""
    show = "echo $WATCHDOG_USEC ${WATCHDOG_PID-none} ${LISTEN_PID-none}"
    pid, _, out, _, _ = run("/bin/sh", "-c", show, environment={"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"})
    assert out == f"5000000 {pid} none\n"
    pid, _, out, _, _ = run("/bin/sh", "-c", show, environment={"WATCHDOG_USEC": "7", "LISTEN_FDS": "1"})
    assert out == f"7 {pid} {pid}\n"
    _, _, out, _, _ = run("/bin/sh", "-c", show)
    assert out == "none none\n"
    _, _, out, _, _ = run("/bin/sh", "-c", show, environment={"WATCHDOG_PID": "1"})
    assert out == "1 none\n"


def test_streams_stay_without_a_journal():
    """$JOURNAL_STREAM that names another stream changes nothing."""
    _, _, out, err, _ = run("/bin/sh", "-c", "echo out; echo err >&2", environment={"JOURNAL_STREAM": "1:1"})
    assert (out, err) == ("out\n", "err\n")


def test_usage():
    """It is not for people, and says so."""
    for arguments in ([], ["web-1"], ["web-1", "3"], ["web-1", "x", "/bin/true"], ["web-1", "-1", "/bin/true"]):
        r = subprocess.run([MUSTER_EXEC, *arguments], capture_output=True, text=True, timeout=20)
        assert r.returncode == 2
        assert r.stderr.startswith("muster-exec is started by musterd")


def test_error_descriptor_that_is_not_open():
    """A mistake of the caller: said, and nothing is run."""
    _, status, out, err, told = run("/bin/echo", "hello", error_fd=199)
    assert (status, out, told) == (127, "", b"")
    assert "The error descriptor 199 is not open: Bad file descriptor" in err
