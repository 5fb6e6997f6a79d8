# SPDX-License-Identifier: MIT
"""muster-exec: becomes the program, or tells by its error descriptor why not."""

import os
import resource
import subprocess

from harness import MUSTER_EXEC


def run(*command, environment=None, error_fd=None, directory="/", options=()):
    """Pid, exit status, stdout, stderr, and what came out of the error pipe."""
    r, w = os.pipe()
    env = {"PATH": os.environ["PATH"], **(environment or {})}
    process = subprocess.Popen(
        [MUSTER_EXEC, *options, "web-1", str(w if error_fd is None else error_fd), str(directory), *command],
        pass_fds=[w], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    os.close(w)
    out, err = process.communicate(timeout=20)
    with open(r) as f:
        told = f.read()
    return process.pid, process.returncode, out, err, told


def test_becomes_the_program():
    """Same pid, its arguments, its status; the error pipe ends without a byte."""
    pid, status, out, err, told = run("/bin/sh", "-c", 'echo $$ "$0" "$1"; exit 7', "zero", "a b")
    assert (status, out, err, told) == (7, f"{pid} zero a b\n", "", "")


def test_error_pipe_ends_while_the_program_runs():
    """Success is told by the end of the pipe, and the program does not have the descriptor."""
    r, w = os.pipe()
    with subprocess.Popen([MUSTER_EXEC, "web-1", str(w), "/", "/bin/cat"], pass_fds=[w], stdin=subprocess.PIPE) as process:
        os.close(w)
        with open(r, "rb") as f:
            assert f.read() == b""
        assert process.poll() is None  # cat waits for its input
        process.stdin.close()
        assert process.wait(20) == 0


def test_failure_is_told(tmp_path):
    """In one line for people; exit 127; and nobody else says anything."""
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/python\n")
    script.chmod(0o755)
    plain = tmp_path / "plain"
    plain.write_text("no program\n")
    plain.chmod(0o755)
    for program, text in (
        ("/nonexistent/x", 'cannot execute "/nonexistent/x": No such file or directory'),
        ("/", 'cannot execute "/": Permission denied'),
        ("/dev/null/x", 'cannot execute "/dev/null/x": Not a directory'),
        (str(script), f'cannot execute "{script}": its interpreter (#!) does not exist'),
        (str(plain), f'cannot execute "{plain}": Exec format error'),
        ("no-such-program", 'cannot find "no-such-program" in PATH'),
    ):
        assert run(program)[1:] == (127, "", "", text)


def test_failure_is_short_and_printable():
    """Whatever the names are, at most 512 bytes without a control character."""
    _, status, _, _, told = run("/x\n\x1b[31m" + "y" * 4000)
    assert status == 127 and told.startswith('cannot execute "/x??[31myyy') and told.endswith('…": File name too long')
    assert len(told.encode()) <= 512
    _, status, _, _, told = run("/bin/true", directory="/" + "ä" * 2000)
    assert status == 127 and told.startswith('cannot enter the directory "/äää') and told.endswith('": File name too long')
    assert len(told.encode()) <= 512


def test_directory(tmp_path):
    """The program runs there, and one whose path has a slash is looked for there."""
    program = tmp_path / "here"
    program.write_text("#!/bin/sh\npwd\n")
    program.chmod(0o755)
    assert run("./here", directory=tmp_path)[1:] == (0, f"{tmp_path}\n", "", "")
    assert run("/bin/true", directory=tmp_path / "gone")[1:] == (
        127, "", "", f'cannot enter the directory "{tmp_path}/gone": No such file or directory')


def test_path(tmp_path):
    """PATH is the worker's: the first that can be executed is taken, and one that may not be is told if it is all."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text(f"#!/bin/sh\necho {name}\n")
    (tmp_path / "second/tool").chmod(0o755)
    path = f"/nonexistent:{tmp_path}/first:{tmp_path}/second"
    assert run("tool", environment={"PATH": path})[1:] == (0, "second\n", "", "")
    (tmp_path / "second/tool").chmod(0o644)
    assert run("tool", environment={"PATH": path})[1:] == (127, "", "", 'cannot execute "tool": Permission denied')


def test_plain_channel():
    """A program that is no app of Node's does not learn Node's names of the channel."""
    names = {"MUSTER_CHANNEL_FD": "9", "NODE_CHANNEL_FD": "9", "NODE_CHANNEL_SERIALIZATION_MODE": "json"}
    show = ("/bin/sh", "-c", "echo ${MUSTER_CHANNEL_FD-none} ${NODE_CHANNEL_FD-none} ${NODE_CHANNEL_SERIALIZATION_MODE-none}")
    assert run(*show, environment=names)[2] == "9 9 json\n"
    assert run(*show, environment=names, options=["--plain-channel"])[2] == "9 none none\n"


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
    for arguments in ([], ["web-1"], ["web-1", "3", "/"], ["web-1", "x", "/", "/bin/true"], ["web-1", "-1", "/", "/bin/true"],
                      ["--plain-channel", "web-1", "3", "/"]):
        r = subprocess.run([MUSTER_EXEC, *arguments], capture_output=True, text=True, timeout=20)
        assert r.returncode == 2
        assert r.stderr.startswith("muster-exec is started by musterd")


def test_error_descriptor_that_is_not_open():
    """A mistake of the caller: said, and nothing is run."""
    _, status, out, err, told = run("/bin/echo", "hello", error_fd=199)
    assert (status, out, told) == (127, "", "")
    assert err == "muster-exec: the error descriptor 199 is not open\n"
