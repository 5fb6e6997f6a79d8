# SPDX-License-Identifier: MIT
"""The shared state's URL: who is told it, and that its password gets nowhere it was not asked for."""

import json
import pathlib
import signal
import subprocess
import tempfile

import pytest
from harness import MUSTER, MUSTERD, tcp, unix

SECRET = "hunter2/%"
ENCODED = "hunter2%2F%25"
PROGRAM = 'kind = "program"; command = [ "/bin/sleep", "1000" ]; '
NAMES = "MUSTER_STATE_URL", "MUSTER_STATE_CREDENTIAL", "MUSTER_STATE_REQUIRED", "WHOLE"


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as path:  # a short one, for sockets
        yield pathlib.Path(path)


def config(state):
    return f'workers: {{ count = 1; soak = "1ms"; start_grace = "10ms"; }};\n{state}'


def told(m):
    environment = m.worker().environment()
    return {name: environment[name] for name in NAMES if name in environment}


def test_default(ready, folder):
    """What systemd has made is used; without, there is none."""
    m = ready(config(""), app=PROGRAM, environment={"STATE_DIRECTORY": f"{folder}:/elsewhere"})
    assert told(m) == {"MUSTER_STATE_URL": f"lmdb:{folder}/state"}
    assert told(ready(config(""), app=PROGRAM, environment={"MUSTER_STATE_URL": "redis://outer"})) == {}


def test_password(ready, folder):
    """It is in the file, and in the one variable that asks for it; not in the status, the log or what is printed."""
    (folder / "redis").write_text(SECRET + "\n")
    m = ready(config('state: { url = "redis://me@db/1"; credential = "redis"; required = true; };'),
              app=PROGRAM + 'environment = { WHOLE = "%{state_url}"; };', environment={"CREDENTIALS_DIRECTORY": str(folder)},
              sockets=[("http", tcp()), ("control", unix(folder / "control"))])
    assert told(m) == {"MUSTER_STATE_URL": "redis://me@db/1", "MUSTER_STATE_CREDENTIAL": f"{folder}/redis",
                       "MUSTER_STATE_REQUIRED": "1", "WHOLE": f"redis://me:{ENCODED}@db/1"}
    status = subprocess.run([MUSTER, f"--socket={folder}/control", "--json", "status", "web"], capture_output=True, text=True, timeout=30)
    printed = subprocess.run([MUSTERD, "--print-config", m.config_file], capture_output=True, text=True, timeout=30)
    assert json.loads(status.stdout)["state"] == "running" and "redis://me@db/1" in printed.stdout
    m.kill()
    m.wait_exit()
    for text in status.stdout, printed.stdout, m.stderr(), *m.statuses():
        assert "hunter2" not in text


@pytest.mark.parametrize("state, why", [
    ('state: { url = "redis://me:hunter2@db"; };', "state.url: found a password in it, expected it in a file: state.credential"),
    ('state: { url = "redis://me:hunter2@db-%{app}"; };', "state.url: found a password in it, expected it in a file: state.credential"),
    ('state: { url = "postgresql://me@db/app?password=hunter2"; };', "state.url: found a password in it, expected it in a file: state.credential"),
    ('state: { url = "lmdb:"; };', 'state.url: found "lmdb:", but there is no $STATE_DIRECTORY'),
    ('state: { url = "redis://db"; credential = "/nowhere/x"; };', "state.credential: cannot read /nowhere/x: No such file or directory"),
    ('state: { url = "redis://db"; credential = "x"; };', 'state.credential: found "x", but there is no $CREDENTIALS_DIRECTORY'),
])
def test_refused(start, state, why):
    """A start without what was asked for is none."""
    m = start(config(state), app=PROGRAM)
    assert m.wait_exit() == 2
    assert why in m.stderr() and why in m.statuses()[-1]
    assert "hunter2" not in m.stderr()
    printed = subprocess.run([MUSTERD, "--print-config", m.config_file], capture_output=True, text=True, timeout=30)
    assert "hunter2" not in printed.stdout + printed.stderr


def test_reload(ready, folder):
    """A file that is gone fails the reload; one that has another password is read anew."""
    secret = folder / "redis"
    secret.write_text("one")
    text = config(f'state: {{ url = "redis://db"; credential = "{secret}"; }};')
    m = ready(text, app=PROGRAM + 'environment = { WHOLE = "%{state_url}"; };')
    before = m.worker().pid
    secret.unlink()
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    assert f"; reload failed: {m.config_file}:3: state.credential: cannot read {secret}: No such file" in m.wait_message("READY=1")
    assert m.worker().pid == before
    secret.write_text("two")
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    m.wait_message("READY=1")
    m.wait_until(lambda: m.worker().pid != before, "the new worker alone")
    assert told(m)["WHOLE"] == "redis://:two@db"
