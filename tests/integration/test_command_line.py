# SPDX-License-Identifier: MIT
"""musterd's arguments, --check and --print-config: what is printed where, and with which exit status."""

import os
import subprocess

import pytest
from harness import MUSTERD


def run(*arguments, **kwargs):
    return subprocess.run([MUSTERD, *map(str, arguments)], capture_output=True, text=True, timeout=20, **kwargs)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "web.conf"
    path.write_text('workers: { count = 3; };\n')
    return path


def test_check_valid(config):
    """Says so, 0, and starts nothing."""
    r = run("--check", config)
    assert (r.returncode, r.stdout, r.stderr) == (0, f"{config}: valid\n", "")


def test_check_invalid(config):
    """The error with file, line and key on stderr; exit 2."""
    config.write_text("workers: {\n count = 0;\n};\n")
    r = run("--check", config)
    assert (r.returncode, r.stdout) == (2, "")
    assert f'{config}:2: workers.count: found 0, expected "auto" or a number from 1 to 256\n' in r.stderr


@pytest.mark.parametrize(
    "text, message",
    [
        ('app: { kind = "program"; };', ": app.command: found nothing, expected the program and its arguments"),
        ('app: { kind = "node"; command = [ "npm", "start" ]; directory = "@"; };',
         ':1: app.command: found "npm start", expected the program itself: npm is a Node process too and takes the app\'s '
         'channel for itself; say what "scripts.start" in package.json says: node server.js\n'),
        ('app: { kind = "node"; command = [ "node", "--watch", "server.js" ]; };',
         ':1: app.command: found "node --watch server.js", expected no --watch: '),
        ('app: { kind = "program"; command = [ "x" ]; };\nworkers: { spare = 2; };',
         ':2: workers.spare: found it with app.kind = "program", expected it with "node" only: '),
        ('app: { environment_file = "@/env"; };', ":1: app.environment_file: @/env:2: found a line without an equals sign"),
    ],
)
def test_check_kinds(config, tmp_path, text, message):
    """What does not go together, and what the configuration names, is told with its line too."""
    (tmp_path / "package.json").write_text('{\n "scripts": {\n  "start": "node server.js"\n }\n}\n')
    (tmp_path / "env").write_text("A=1\ntop secret\n")
    config.write_text(text.replace("@", str(tmp_path)))
    r = run("--check", config)
    assert (r.returncode, r.stdout) == (2, "")
    assert str(config) + message.replace("@", str(tmp_path)) in r.stderr and "secret" not in r.stderr


def test_check_needs_no_program(config):
    """A configuration is valid before its app is installed."""
    config.write_text('app: { kind = "node"; command = [ "/nonexistent/node", "server.js" ]; directory = "/nonexistent"; };\n')
    assert run("--check", config).stdout == f"{config}: valid\n"


def test_start_with_invalid_file(start):
    """The same without --check: exit 2, nothing was started, systemd knows why."""
    m = start("http: { max_connections = 0; };")
    assert m.wait_exit() == 2
    (status,) = m.statuses()
    assert status.startswith(f"Failed to start: {m.config_file}:") and "http.max_connections: found 0" in status


def test_missing_file(tmp_path):
    """By name of a file and by name of an app."""
    r = run("--check", tmp_path / "gone.conf")
    assert r.returncode == 2
    assert f"{tmp_path}/gone.conf: cannot open: No such file or directory" in r.stderr
    r = run("--check", "no-such-app")
    assert r.returncode == 2
    assert "/muster/no-such-app.conf: cannot open: No such file or directory" in r.stderr


def test_print_config(config):
    """Effective values with all defaults, which read back as themselves."""
    r = run("--print-config", config)
    assert r.returncode == 0 and r.stderr == ""
    assert "  count = 3;\n" in r.stdout
    assert '  idle_timeout = "1min";\n' in r.stdout
    config.write_text(r.stdout)
    assert run("--print-config", config).stdout == r.stdout


def test_name_and_file(config):
    """-c names the file, the argument the app."""
    for arguments in (("-c", config), ("-c", config, "other"), (f"--config={config}",), (config,)):
        assert run("--check", *arguments).stdout == f"{config}: valid\n"


@pytest.mark.parametrize(
    "arguments, text",
    [
        ((), "musterd: no app was named\n"),
        (("a", "b"), 'musterd: one app at a time: found "b"\n'),
        (("-c", "x.conf", "y.conf"), 'musterd: a file was given twice: found "y.conf"\n'),
        (("--nonsense", "a"), "unrecognized option"),
        (("-c",), "requires an argument"),
        (("",), "the app's name must be 1 to 64 letters, digits and _.:-, beginning with none of .-: found \"\"\n"),
        (("a b",), 'found "a b"\n'),
        (("..",), 'found ".."\n'),
        (("/x/.conf",), 'found ".conf"\n'),
        (("x" * 65,), "the app's name must be"),
        (("/x/a b.conf",), 'found "a b"\n'),
    ],
)
def test_usage(arguments, text):
    """Exit 2, the reason and where to find help."""
    r = run(*arguments)
    assert (r.returncode, r.stdout) == (2, "")
    assert text in r.stderr and r.stderr.endswith('Try "musterd --help".\n')


def test_help_and_version():
    """On stdout, 0."""
    r = run("--help")
    assert r.returncode == 0 and r.stdout.startswith("musterd [OPTION…] NAME|FILE") and r.stderr == ""
    r = run("--version")
    assert r.returncode == 0 and r.stdout.startswith("musterd 0.") and r.stderr == ""


def test_full_disk(config):
    """What could not be printed is a failure."""
    with open("/dev/full", "w") as full:
        r = subprocess.run([MUSTERD, "--print-config", config], stdout=full, timeout=20)
    assert r.returncode == 1


def test_closed_standard_streams(config):
    """Started with 0, 1 and 2 closed it must not take a socket or a file for its stderr."""
    pid = os.fork()
    if pid == 0:
        os.closerange(0, 3)
        os.execv(MUSTERD, [str(MUSTERD), "--check", str(config)])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_reader_of_stderr_is_gone(ready):
    """Nobody reads the messages any more, which is no reason to stop serving."""
    r, w = os.pipe()
    m = ready(stderr=w, workers=1)
    os.close(w)
    os.close(r)
    m.worker_processes()[0].kill(9)  # this is logged
    m.wait_status("1/1 workers ready, 0 connections, generation 1")
    assert m.get().status == 200
