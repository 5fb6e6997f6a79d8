# SPDX-License-Identifier: MIT
"""The life of a Node worker: when it is ready, how it is replaced at its own wish, and how it ends."""

import contextlib

import signal

import pytest

from harness import Process
from lifecycle import wait_said
from node_app import Gate, ask, begin, connection_to, finish, instances, node_app, pid_of, served_by, tell, workers
from test_reload import reload

# One that goes at its own wish is replaced no sooner after its start than this; a second death would be waited for.
NO_PAUSE = 'restart: { backoff_min = "1ms"; backoff_max = "1h"; };\n'


def deed_pid(m):
    return pid_of(m, "/pid")


def assert_no_death(m):
    assert "trying again" not in m.stderr() and "killed" not in m.stderr()
    assert all(line.endswith("exited with status 0.") for line in m.stderr().splitlines() if "exited with" in line)


#
# Ready
#


def test_ready_by_listening(ready, apps, tmp_path):
    """When it listens."""
    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "ready.js", environment=gate.environment)
        assert pid_of(m) in {w.pid for w in m.worker_processes()}


def test_wait_ready(start, apps, tmp_path):
    """process.send('ready'), and nothing else. At a reload the old ones serve until then."""
    with Gate(tmp_path) as gate:
        m = begin(start, apps, "ready.js", workers("wait_ready = true;"), environment=gate.environment)
        waiting = [gate.wait("ready") for _ in range(2)]  # both listen by now
        assert not any("READY=1" in text for _, text in m.messages) and all("0/2" in s for s in m.statuses())
        for _, go_on in waiting:
            go_on()
        m.wait_ready()
        old = {pid for pid, _ in waiting}
        assert served_by(m, 2) == old

        reload(m)
        first, go_on = gate.wait("ready")
        assert served_by(m, 2) == old
        go_on()
        second, go_on = gate.wait("ready")
        go_on()
        m.wait_ready()
        for pid in old:
            with contextlib.suppress(ProcessLookupError):
                Process(pid, m).wait_end()
        assert served_by(m, 2) == {first, second}


def test_never_ready(start, apps):
    """An app that does not listen: the start fails within start_timeout, and says so."""
    m = begin(start, apps, "returns.js", 'workers: { count = 1; start_timeout = "2s"; };\n')
    assert m.wait_exit() != 0
    assert "not ready within 2s" in m.stderr()


#
# Ends
#


def test_crash(ready, apps):
    """An uncaught exception: the log has Node's own words, and the slot a new worker with the same instance."""
    m = begin(ready, apps, "deeds.js")
    victim = instances(m)[1]
    with pytest.raises((EOFError, ConnectionResetError)):
        tell(m, victim.pid, "/crash").answer()
    m.wait_status(lambda s: s.startswith("1/2") and "exited with status 1" in s)
    m.wait_status(lambda s: s.startswith("2/2"))
    assert "Error: on purpose" in m.stderr()
    assert instances(m)[1].pid != victim.pid and sorted(instances(m)) == [0, 1]
    assert served_by(m, 2, deed_pid) == {w.pid for w in instances(m).values()}


def test_exit_with_work(ready, apps, tmp_path):
    """process.exit(0) while requests are open: it is replaced, and what it has cut off ends at once."""
    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "deeds.js", environment=gate.environment)
        victim = instances(m)[0]
        client = tell(m, victim.pid, "/slow")
        gate.wait()
        exiting = tell(m, victim.pid, "/exit")
        for cut_off in client, exiting:
            with pytest.raises((EOFError, ConnectionResetError)):
                cut_off.answer()
        m.wait_status(lambda s: s.startswith("2/2"))
        assert victim.ended() and instances(m)[0].pid != victim.pid
        assert served_by(m, 2, deed_pid) == {w.pid for w in instances(m).values()}


def test_disconnect(ready, apps, tmp_path):
    """cluster.worker.disconnect(): it finishes what it has, its sibling serves meanwhile, and it is replaced, again and again."""
    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "deeds.js", NO_PAUSE, environment=gate.environment)
        for _ in range(3):
            old, sibling = instances(m)[0], instances(m)[1]
            slow = tell(m, old.pid, "/slow")
            _, go_on = gate.wait()
            finish(tell(m, old.pid, "/disconnect"), b"ok\n")
            for _ in range(4):
                assert deed_pid(m) == sibling.pid
            assert not old.ended()
            go_on()
            finish(slow)
            old.wait_end()
            m.wait_until(lambda: len({deed_pid(m) for _ in range(4)}) == 2, "answers by two again")
        assert "killed" not in m.stderr()


def test_disconnect_of_the_only_one(ready, apps, tmp_path):
    """Clients wait meanwhile, and are answered by the next one."""
    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "deeds.js", NO_PAUSE, workers=1, environment=gate.environment)
        (old,) = m.worker_processes()
        slow = tell(m, old.pid, "/slow")
        _, go_on = gate.wait()
        finish(tell(m, old.pid, "/disconnect"), b"ok\n")
        waiting = [ask(m, "/") for _ in range(8)]
        go_on()
        finish(slow)
        old.wait_end()
        for client in waiting:
            finish(client, b"hello\n")
        assert_no_death(m)


def test_suicide(ready, apps, tmp_path):
    """process.send({act: 'suicide'}) on an uncaught exception: its successor serves before it goes, and it finishes its requests."""
    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "uncaught.js", NO_PAUSE, workers=1, environment=gate.environment)
        for n in range(3):
            (old,) = m.worker_processes()
            slow = tell(m, old.pid, "/slow")
            _, go_on = gate.wait()
            crashed = tell(m, old.pid, "/crash")
            wait_said(m, f"caught {old.pid} on purpose")
            m.wait_until(lambda: deed_pid(m) != old.pid, "an answer by the next one")
            assert not old.ended()
            crashed.close()
            go_on()
            finish(slow)
            old.wait_end()
        assert_no_death(m)


def test_retire_on_uncaught(ready, apps, tmp_path):
    """The same for an app without a line for that: the request that failed is answered 500, the others are finished, and then it
    ends with status 1. Also of the only worker: whoever comes meanwhile waits for the next one."""
    with Gate(tmp_path) as gate:
        settings = 'workers: { count = 1; soak = "20ms"; start_timeout = "1min"; retire_on_uncaught = true; };\n'
        m = begin(ready, apps, "deeds.js", settings + NO_PAUSE, environment=gate.environment)
        for n in range(3):
            (old,) = m.worker_processes()
            slow = tell(m, old.pid, "/slow")
            _, go_on = gate.wait()
            crashed = tell(m, old.pid, "/crash")
            assert crashed.answer().status == 500
            assert deed_pid(m) != old.pid
            assert not old.ended()
            go_on()
            finish(slow)
            old.wait_end()
            wait_said(m, f"Worker 1 (pid {old.pid}) exited with status 1.")
        assert m.stderr().count("is to be replaced: on purpose") == 3
        assert "trying again" not in m.stderr() and "killed" not in m.stderr()


def test_kill_all(ready, apps):
    """Each slot gets its own instance back, whatever the order."""
    m = begin(ready, apps, "deeds.js", workers=3)
    old = instances(m)
    for worker in old.values():
        worker.kill(signal.SIGKILL)
    m.wait_status(lambda s: not s.startswith("3/3"))
    for worker in old.values():
        worker.wait_end()
    m.wait_until(lambda: sorted(instances(m)) == [0, 1, 2], "the instances")
    pids = served_by(m, 3, deed_pid)
    assert not pids & {w.pid for w in old.values()}


#
# Stop
#


def test_stop(ready, apps, tmp_path):
    """A request that is open is finished, a connection that is idle is closed, and nobody is killed for it."""
    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "deeds.js", workers('stop_timeout = "1h";'), environment=gate.environment)
        pid = instances(m)[0].pid
        slow, idle = tell(m, pid, "/slow"), connection_to(m, pid)
        _, go_on = gate.wait()
        m.kill()
        assert idle.at_end()
        go_on()
        finish(slow)
        assert m.wait_exit() == 0
        assert "SIGKILL" not in m.stderr()


@pytest.mark.parametrize("how", ["stop", "reload"])
def test_kept_alive(ready, apps, tmp_path, how):
    """An app that has still a timer when all is served does not end by itself: it gets SIGTERM, and no SIGKILL. Not before its
    requests are finished."""
    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "timer.js", workers('stop_timeout = "1h";'), environment=gate.environment)
        old = instances(m)
        slow = tell(m, old[0].pid, "/slow")
        _, go_on = gate.wait()
        if how == "stop":
            m.kill()
        else:
            reload(m)
            m.wait_ready()
        old[1].wait_end()
        assert not old[0].ended()
        go_on()
        finish(slow)
        old[0].wait_end()
        if how == "stop":
            assert m.wait_exit() == 0
        assert "SIGKILL" not in m.stderr()


def test_past_the_time(ready, apps, tmp_path):
    """What is not finished by stop_timeout is killed."""
    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "deeds.js", workers('stop_timeout = "1s";', 1), environment=gate.environment)
        slow = ask(m, "/slow")
        gate.wait()
        m.kill()
        assert m.wait_exit() == 0
        with pytest.raises((EOFError, ConnectionResetError)):
            slow.answer()


def test_master_dies(ready, apps):
    """Its workers end with it: nobody is left behind."""
    m = begin(ready, apps, "timer.js")
    orphans = m.worker_processes()
    m.kill(signal.SIGKILL)
    m.wait_exit()
    for worker in orphans:
        worker.wait_end()


#
# Spares
#


def spare_of(m, serving):
    """The process of the one that waits: of the app, but of none of those that serve."""
    return m.wait_until(lambda: next((w for w in m.worker_processes() if w.pid not in serving), None), "a spare")


def test_spare(ready, apps):
    """It has loaded the app and serves nobody, takes over a dead one's slot at once, and there is another one then."""
    m = begin(ready, apps, "deeds.js", workers("spare = 1;"))
    serving = served_by(m, 2, deed_pid)
    for _ in range(3):
        spare = spare_of(m, serving)
        wait_said(m, f"listens {spare.pid}\n")
        assert {deed_pid(m) for _ in range(10)} == serving
        victim = next(w for w in m.worker_processes() if w.pid in serving)
        victim.kill(signal.SIGKILL)
        victim.wait_end()
        serving = serving - {victim.pid} | {spare.pid}
        m.wait_until(lambda: deed_pid(m) == spare.pid, "an answer by the spare")
        assert {deed_pid(m) for _ in range(10)} == serving
    spare_of(m, serving)


def test_spare_and_reload(ready, apps):
    """The spares of the old generation go with it."""
    m = begin(ready, apps, "deeds.js", workers("spare = 1;"))
    serving = served_by(m, 2, deed_pid)
    old = [*instances(m).values(), spare_of(m, serving)]
    reload(m)
    m.wait_ready()
    for worker in old:
        worker.wait_end()
    serving = served_by(m, 2, deed_pid)
    spare = spare_of(m, serving)
    m.kill()
    assert m.wait_exit() == 0
    assert spare.ended() and "SIGKILL" not in m.stderr()


#
# Starts that cannot work
#


@pytest.mark.parametrize("command, words", [
    (["/usr/bin/npm", "start"], ["npm is a Node process too"]),
    (["npm", "run", "serve"], ["npm is a Node process too"]),
    (["/usr/bin/node", "--watch", "app.js"], ["--watch"]),
], ids=lambda v: v[0])
def test_wrappers(start, command, words):
    """They would keep the channel for themselves, so that the app binds its port alone: refused, with the reason."""
    m = start(app=node_app(*command))
    assert m.wait_exit() != 0
    said = m.stderr()
    assert "app.command" in said and all(word in said for word in words), said


def test_script_of_a_package(start, tmp_path):
    """It says what to write instead."""
    (tmp_path / "package.json").write_text('{\n  "name": "web",\n  "scripts": { "start": "node server.js --port 3000" }\n}\n')
    m = start(app=node_app("npm", "start") + f' directory = "{tmp_path}";')
    assert m.wait_exit() != 0
    assert '"scripts.start" in package.json says: node server.js --port 3000' in m.stderr()


def test_not_a_script(start):
    """node -e has no cluster: said, and not served by chance."""
    m = start(app=node_app("/usr/bin/node", "-e", "require('http').createServer((q, r) => r.end()).listen(3000)"))
    assert m.wait_exit() != 0
    assert "the path of a script" in m.stderr()


def test_hidden_wrapper(start, apps, tmp_path):
    """The same by way of a script, which is known only when it speaks."""
    script = tmp_path / "run"
    script.write_text(f"#!/bin/sh\nexec /usr/bin/node --watch {apps}/plain.js\n")
    script.chmod(0o755)
    m = start('workers: { count = 1; start_timeout = "1min"; };\n', app=node_app(script))
    assert m.wait_exit() != 0
    assert "--watch" in m.stderr()
