# SPDX-License-Identifier: MIT
"""Bad apps of Node: the others are served, the log says what happened, and a release that does not work is not served."""

import contextlib
import json
import signal

import pytest

from harness import tcp
from lifecycle import wait_said
from node_app import begin, instances, pid_of, served_by, tell
from test_reload import reload

AT_ONCE = 'restart: { backoff_min = "1ms"; backoff_max = "1ms"; limit = 0; };\n'

# The file, what the master says of its end, and what Node says.
BAD = {
    "exits.js": ("exited with status 7", ""),
    "throws.js": ("exited with status 1", "Cannot find module"),
    "syntax.js": ("exited with status 1", "SyntaxError"),
    "missing.js": ("exited with status 1", "Cannot find module"),
}


@pytest.mark.parametrize("app", BAD)
def test_at_the_start(start, apps, app):
    """The start fails, and says why."""
    m = begin(start, apps, app)
    assert m.wait_exit() != 0
    assert all(text in m.stderr() for text in BAD[app])


def test_port_is_taken(start, apps):
    """Without a handler of its own the app dies of it, as it would alone."""
    with contextlib.closing(tcp()) as taken:
        where = {"host": "127.0.0.1", "port": taken.getsockname()[1]}
        m = begin(start, apps, "listen-alone.js", sockets=[("a", tcp()), ("b", tcp())], environment={"LISTEN": json.dumps(where)})
        assert m.wait_exit() != 0
        assert "EADDRINUSE" in m.stderr() and "exited with status 1" in m.stderr()


@pytest.mark.parametrize("app", BAD)
def test_release(ready, apps, tmp_path, app):
    """At a reload the old generation stays, and the one after that is served if it is better."""
    release = tmp_path / "release"
    release.write_text("deeds.js")
    m = begin(ready, apps, "switch.js", environment={"RELEASE": release})
    before = {w.pid for w in m.worker_processes()}
    release.write_text(app)
    reload(m)
    assert f"generation 1; reload failed: worker 1 {BAD[app][0]}" in m.wait_ready()
    assert served_by(m, 2, lambda m: pid_of(m, "/pid")) == before
    release.write_text("plain.js")
    reload(m)
    assert "2/2 workers ready, generation 3" in m.wait_ready()
    assert not served_by(m, 2) & before


def test_dies_later(ready, apps, tmp_path):
    """Its file has become bad and then it dies: the sibling serves, STATUS says why, and it is tried again until it is better."""
    release = tmp_path / "release"
    release.write_text("deeds.js")
    m = begin(ready, apps, "switch.js", AT_ONCE, environment={"RELEASE": release})
    release.write_text("exits.js")
    victim, other = instances(m)[0], instances(m)[1]
    victim.kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("1/2") and "exited with status 7" in s)
    for _ in range(4):
        assert pid_of(m, "/pid") == other.pid
    release.write_text("deeds.js")
    m.wait_status(lambda s: s.startswith("2/2"))
    assert served_by(m, 2, lambda m: pid_of(m, "/pid")) == {w.pid for w in m.worker_processes()}


def assert_served(m, other):
    """By its sibling all the while, and in the end by two."""
    assert not other.ended()
    m.wait_until(lambda: len({pid_of(m, "/pid") for _ in range(6)}) == 2, "answers by two")
    assert other.pid in {w.pid for w in m.worker_processes()}


@pytest.mark.parametrize("deed, said", [
    ("/rubbish", "found something that is no JSON line"),
    ("/long", "found a message longer than 256K"),
], ids=lambda v: v)
def test_bad_channel(ready, apps, deed, said):
    """Its channel is closed, by which Node ends; it is replaced, and the log says what it did."""
    m = begin(ready, apps, "deeds.js", AT_ONCE)
    victim, other = instances(m)[0], instances(m)[1]
    with contextlib.closing(tell(m, victim.pid, deed)):
        wait_said(m, f"(pid {victim.pid}): {said}")
        victim.wait_end()
        assert pid_of(m, "/pid") != victim.pid
    assert_served(m, other)


def test_flood(ready, apps):
    """One that says more than the master has time for has to wait, and serves."""
    m = begin(ready, apps, "deeds.js", AT_ONCE)
    victim, other = instances(m)[0], instances(m)[1]
    with contextlib.closing(tell(m, victim.pid, "/flood")):
        wait_said(m, f"(pid {victim.pid}) has to wait for the rest of a second: it has said more than 64M in it")
        assert served_by(m, 2, lambda m: pid_of(m, "/pid")) == {victim.pid, other.pid}
    assert "Closed the channel" not in m.stderr()


def test_handles(ready, apps):
    """Sockets that nobody has asked for are closed, and acknowledged: else all that the worker says after that would wait."""
    m = begin(ready, apps, "deeds.js", workers=1)
    (worker,) = m.worker_processes()
    for _ in range(3):
        client = tell(m, worker.pid, "/handles")
        assert client.at_end()  # which is so when the master has it no more, and Node has heard that
    assert m.get("/status").body == b"ok\n"
    m.wait_status(lambda s: "well" in s)
    assert pid_of(m, "/pid") == worker.pid


def test_greedy(ready, apps):
    """A worker that opens connection after connection to the service itself, and then stands still: others are served."""
    sock = tcp()
    m = begin(ready, apps, "greedy.js", AT_ONCE, sockets=[("http", sock)], environment={"PORT": sock.getsockname()[1]})
    victim, other = instances(m)[0], instances(m)[1]
    with contextlib.closing(tell(m, victim.pid, "/greedy")):
        m.wait_until(lambda: f"blocked {victim.pid}\n" in m.stderr(), "the end of its event loop")
        m.wait_until(lambda: pid_of(m, "/pid") == other.pid, "an answer")
        victim.kill(signal.SIGKILL)
        victim.wait_end()
    assert_served(m, other)
