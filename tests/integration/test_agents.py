# SPDX-License-Identifier: MIT
"""Agents: one process each, there before the first worker and after the last one, and none of the workers' business."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest
from harness import MUSTER, Process, tcp, unix
from lifecycle import elapse, gate, wait_said

PROGRAM = pathlib.Path(__file__).parent / "programs/agent.py"
REDIS = shutil.which("redis-server")
QUICK = 'soak = "1ms"; start_timeout = "1min";'
SLOW = 'start_grace = "1min";'  # it is not ready only because time has passed


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as path:  # a short one, for sockets
        yield pathlib.Path(path)


def command(*words):
    return "[ " + ", ".join(json.dumps(str(word)) for word in words) + " ]"


class Companions:
    """The programs of a test, and what they have written down."""

    def __init__(self, folder):
        self.log = folder / "log"

    def command(self, name, *words):
        return command(PROGRAM, self.log, name, *words)

    def agent(self, name, *words, settings=""):
        grace = "" if "start_grace" in settings else SLOW
        return f'{{ name = "{name}"; command = {self.command(name, *words)}; {grace} {settings} }}'

    def app(self, *words, environment=""):
        """Workers that are such programs, too."""
        return f'kind = "program"; command = {self.command("worker", *words)}; environment = {{ {environment} }};'

    def lines(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def events(self):
        """Without the pids."""
        return [" ".join(line.split()[:2]) for line in self.lines()]

    def pids(self, name, what="start"):
        return [int(line.split()[2]) for line in self.lines() if line.split()[:2] == [name, what]]

    def wait(self, m, event, n=1):
        m.wait_until(lambda: self.events().count(event) >= n, f"{event}, {n} times")


@pytest.fixture
def those(folder):
    return Companions(folder)


def agents(*items, settings="", workers=2, also=""):
    return f'workers: {{ count = {workers}; {QUICK} {settings} }};\n{also}\nagents: ( {", ".join(items)} );\n'


def beside_programs(*items, settings="", **more):
    """With the workers of Companions.app()."""
    return agents(*items, settings=f"{SLOW} {settings}", **more)


def stands_at(m, path):
    """Somebody has come to the gate, and passes when this is closed."""

    def opened():
        with contextlib.suppress(OSError):  # ENXIO: nobody is there yet
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), "w")

    return m.wait_until(opened, f"one at {path}")


def reload(m):
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")


def reloaded(m, n=2, generation=2, also=""):
    """How a reload has ended, as systemd is told."""
    assert m.wait_message("READY=1") == f"READY=1\nSTATUS={well(n, generation)}{also}"


def workers_of(m):
    found = []
    for p in m.worker_processes():
        with contextlib.suppress(OSError):
            if "MUSTER_WORKER" in p.environment():
                found.append(p)
    return found


def well(n=2, generation=1):
    return f"{n}/{n} workers ready, generation {generation}"


#
# Start and stop
#


def test_before_and_after(start, those, tmp_path):
    """One after the other, each when the one before is ready; then the workers. At the end it is the other way round."""
    one, two, last1, last2 = (gate(tmp_path, name) for name in ("one", "two", "last1", "last2"))
    m = start(beside_programs(those.agent("a", "ready", f"gate={one}"), those.agent("b", "ready", f"gate={two}")),
              app=those.app("ready", f"last={tmp_path}/last%{{worker}}"))
    with stands_at(m, one):
        m.wait_status("Starting: 0/2 workers ready, 0/2 agents")
        assert those.events() == ["a start"]
    with stands_at(m, two):
        m.wait_status("Starting: 0/2 workers ready, 1/2 agents")
        assert those.events() == ["a start", "a ready", "b start"]
    m.wait_ready()
    assert those.events()[:4] == ["a start", "a ready", "b start", "b ready"]
    assert sorted(those.events()[4:]) == ["worker ready"] * 2 + ["worker start"] * 2

    m.kill()
    with stands_at(m, last2):
        with stands_at(m, last1):
            pass
        those.wait(m, "worker ended")
        assert "a end" not in those.events() and "b end" not in those.events()
    assert m.wait_exit() == 0
    assert those.events()[-5:] == ["worker ended", "b end", "b ended", "a end", "a ended"]
    assert "Stopping: 2 agents end" in m.statuses()
    assert m.children() == []


def test_ready_without_a_word(ready, those):
    """One that never says READY=1 is ready when it has lived for start_grace."""
    m = ready(agents(those.agent("a", settings='start_grace = "50ms";')))
    assert "Agent a" in m.stderr().split("Worker 1")[0]
    those.wait(m, "a start")
    assert "a ready" not in those.events()


def test_no_worker_before_it_is_ready(start, those, tmp_path):
    """However long that takes: what is looked at all the while is not that workers are missing."""
    one = gate(tmp_path)
    m = start(beside_programs(those.agent("a", "ready", f"gate={one}"), settings='watchdog = "100ms";'), app=those.app("ready"))
    with stands_at(m, one):
        elapse(m, 0.5)
        assert those.events() == ["a start"]
    m.wait_ready()
    assert those.events()[:2] == ["a start", "a ready"]


def failed(m):
    assert m.wait_exit() == 1
    assert m.children() == []
    return m.statuses()[-1]


def test_not_ready_in_time(start, those):
    """With wait_ready nothing but READY=1 counts, and a start that takes too long fails, with the reason."""
    m = start(beside_programs(those.agent("a", settings='wait_ready = true; start_grace = "1ms"; start_timeout = "300ms";')),
              app=those.app("ready"))
    assert failed(m) == "Failed to start: agent a was killed: not ready within 300ms"
    assert 'The app "web" cannot start: agent a was killed: not ready within 300ms' in m.stderr()
    assert "worker start" not in those.events()


def test_failed_start(start, those, tmp_path):
    """One that ends fails the start; those before it are told to end, and no worker has been started."""
    (tmp_path / "broken").touch()
    m = start(beside_programs(those.agent("a", "ready"), those.agent("b", f"fails={tmp_path / 'broken'}"), those.agent("c", "ready")),
              app=those.app("ready"))
    assert failed(m) == "Failed to start: agent b exited with status 3"
    assert those.events() == ["a start", "a ready", "b start", "a end", "a ended"]


@pytest.mark.parametrize("words, why", [
    (["no-such-program"], 'could not be started: cannot find "no-such-program" in PATH'),
    (["/nowhere/redis-server"], 'could not be started: cannot execute "/nowhere/redis-server": No such file or directory'),
    (["%{env:NOT_THERE}"], 'agents.command: found "%{env:NOT_THERE}", expected the name of a variable of musterd\'s own environment'),
])
def test_cannot_be_executed(start, words, why):
    m = start(agents(f'{{ name = "a"; command = {command(*words)}; }}'))
    said = failed(m)
    assert said.startswith("Failed to start: agent a c") and said.endswith(why)


def test_start_fails_in_a_worker(start, those, tmp_path):
    """Whatever fails the start ends the agents too, after the workers."""
    (tmp_path / "broken").touch()
    m = start(beside_programs(those.agent("a", "ready"), workers=1), app=those.app(f"fails={tmp_path / 'broken'}"))
    assert failed(m) == "Failed to start: worker 1 exited with status 3"
    assert those.events() == ["a start", "a ready", "worker start", "a end", "a ended"]


def test_dies_before_the_workers_are_ready(start, those, tmp_path):
    """A start in which an agent dies is none, though it had been ready."""
    one = gate(tmp_path)
    m = start(beside_programs(those.agent("a", "ready"), workers=1), app=those.app("ready", f"gate={one}"))
    with stands_at(m, one):
        os.kill(those.pids("a")[0], signal.SIGKILL)
        assert failed(m) == "Failed to start: agent a was killed by signal 9, SIGKILL"


def test_stopped_while_it_starts(start, those, tmp_path):
    one = gate(tmp_path)
    m = start(beside_programs(those.agent("a", "ready"), those.agent("b", "ready", f"gate={one}")), app=those.app("ready"))
    with stands_at(m, one):
        m.kill()
        assert m.wait_exit() == 0
    assert those.events() == ["a start", "a ready", "b start", "b end", "b ended", "a end", "a ended"]


def test_stop_signal_and_timeout(ready, those):
    """It gets the signal that it wants; one that does not end in its time is killed."""
    m = ready(agents(those.agent("a", "ready", settings='stop_signal = "SIGINT";'),
                     those.agent("b", "ready", "deaf", settings='stop_timeout = "200ms";')))
    m.kill()
    assert m.wait_exit() == 0
    assert those.lines()[-2:] == ["a end SIGINT", "a ended"]
    assert "did not finish within 200ms, killing it" in m.stderr()
    assert not pathlib.Path(f"/proc/{those.pids('b')[0]}").exists()


def test_hurry(ready, those):
    """^C for the second time ends agents at once."""
    m = ready(agents(those.agent("a", "ready", "deaf")))
    m.kill(signal.SIGINT)
    m.wait_status("Stopping: 1 agent ends")
    m.kill(signal.SIGINT)
    assert m.wait_exit() == 0


def test_master_is_killed(ready, those):
    """No orphan is left of it."""
    m = ready(agents(those.agent("a", "ready")))
    agent = Process(those.pids("a")[0])
    m.kill(signal.SIGKILL)
    m.wait_exit()
    agent.wait_end()
    assert those.events()[-2:] == ["a end", "a ended"]


def test_idle_exit(start, those):
    """An app that nobody wants has no companions either."""
    m = start(agents(those.agent("a", "ready"), also='idle_exit = "200ms";'))
    assert m.wait_exit() == 0
    assert those.events() == ["a start", "a ready", "a end", "a ended"]


def test_environment(ready, those):
    """What an agent knows: the app's variables and its own, who it is, and nothing of sockets."""
    m = ready(beside_programs(those.agent("a", "ready", settings='environment = { OWN = "%{app}"; BOTH = "agent"; HERE = "%{env:HERE}"; };')),
              app=those.app("ready", environment='COMMON = "1"; BOTH = "app"; NUMBER = "%{worker}"; FD = "%{fd:http}";'),
              environment={"HERE": "/here"})
    environment = Process(those.pids("a")[0]).environment()
    assert {k: environment.get(k) for k in ("OWN", "BOTH", "HERE", "COMMON", "MUSTER_APP", "MUSTER_AGENT", "MUSTER_GENERATION")} == {
        "OWN": "web", "BOTH": "agent", "HERE": "/here", "COMMON": "1", "MUSTER_APP": "web", "MUSTER_AGENT": "a",
        "MUSTER_GENERATION": "1"}
    assert "NOTIFY_SOCKET" in environment
    for name in "NUMBER", "FD", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "MUSTER_WORKER", "NODE_CHANNEL_FD":
        assert name not in environment
    assert not any(target.startswith("socket:") and number == 3 for number, target in Process(those.pids("a")[0]).fds().items())
    assert Process(those.pids("worker")[0]).environment()["BOTH"] == "app"
    assert m.slots() == [1, 2]


#
# Deaths
#


def test_restart(ready, those, tmp_path):
    """One that dies is started again, and no worker notices; systemd is told what is missing, and that it is back."""
    m = ready(beside_programs(those.agent("a", "ready"), those.agent("b", "ready")), app=those.app("ready"))
    workers = {w.pid for w in workers_of(m)}
    for n in 1, 2:
        os.kill(those.pids("a")[-1], signal.SIGKILL)
        m.wait_status(lambda s: s.startswith(well() + "; agent a is ") and s.endswith(": it was killed by signal 9, SIGKILL"))
        m.wait_status(well())
        assert those.events().count("a start") == n + 1
    assert {w.pid for w in workers_of(m)} == workers
    assert those.events().count("b start") == 1


def test_failing(ready, those, tmp_path):
    """One that keeps dying is tried with pauses, and said to be failing; what mends it is found by the next attempt."""
    broken = tmp_path / "broken"
    m = ready(beside_programs(those.agent("a", "ready", f"fails={broken}"),
                     also='restart: { limit = 3; window = "1min"; backoff_min = "10ms"; backoff_max = "50ms"; };'),
              app=those.app("ready"))
    broken.touch()
    os.kill(those.pids("a")[0], signal.SIGKILL)
    m.wait_status(well() + "; agent a is failing: it exited with status 3")
    assert "Agent a died early 2 times in a row, trying again in 10ms." in m.stderr()
    assert "Agent a is failing: more than 3 deaths within 1min; trying again every 50ms." in m.stderr()
    broken.unlink()
    m.wait_status(well())


def test_what_it_leaves_behind(ready, those):
    """A process that it has started ends with it, and one that lives on with it is left alone."""
    m = ready(agents(those.agent("a", "ready", "child")))
    child = Process(those.pids("a", "child")[0], m)
    os.kill(those.pids("a")[0], signal.SIGKILL)
    child.wait_end()
    those.wait(m, "a ready", 2)
    child = Process(those.pids("a", "child")[1], m)
    elapse(m, 0.3)
    assert not child.ended()
    m.kill()
    assert m.wait_exit() == 0
    child.wait_end()


def test_watchdog(ready, those, tmp_path):
    """One that has said WATCHDOG=1 has to go on."""
    one = gate(tmp_path)
    m = ready(agents(those.agent("a", "ready", f"watchdog={one}", settings='watchdog = "200ms";')))
    with stands_at(m, one):
        pass
    those.wait(m, "a start", 2)
    assert f"Agent a (pid {those.pids('a')[0]}) did not react for 200ms, ending it." in m.stderr()
    assert "was killed: it did not react for 200ms" in m.stderr()


def test_watchdog_of_a_changed_one(start, those, tmp_path):
    """It is looked at as often as it wants to be, though nobody was before."""
    never, one = 'watchdog = "0";', gate(tmp_path)
    m = start(beside_programs(those.agent("a", "ready", settings=never), settings=never), app=those.app("ready"), notify=False)
    those.wait(m, "worker ready", 2)
    m.write_config(beside_programs(those.agent("a", "ready", f"watchdog={one}", settings='watchdog = "200ms";'), settings=never), app=those.app("ready"))
    m.kill(signal.SIGHUP)
    with stands_at(m, one):
        pass
    those.wait(m, "a start", 3)
    assert f"Agent a (pid {those.pids('a')[1]}) did not react for 200ms, ending it." in m.stderr()


def test_says_that_it_hangs(ready, those, tmp_path):
    one = gate(tmp_path)
    m = ready(agents(those.agent("a", "ready", f"hangs={one}")))
    with stands_at(m, one):
        pass
    those.wait(m, "a start", 2)
    assert "said that it hangs, ending it." in m.stderr()


def test_shell(ready, those):
    """A shell is nothing to complain of: an agent has no sockets that it could miss."""
    m = ready(agents(f'{{ name = "a"; command = {command("/bin/sh", "-c", f"{PROGRAM} {those.log} a ready; true")}; }}'))
    m.kill()
    assert m.wait_exit() == 0
    assert "shell" not in m.stderr()


def test_speaks_to_workers(ready, those, tmp_path):
    """What it broadcasts on its channel every worker gets, and no other agent."""
    one = gate(tmp_path)
    m = ready(beside_programs(those.agent("a", "ready", f"says={one}"), those.agent("b", "ready", "hears")), app=those.app("ready", "hears"))
    with stands_at(m, one):
        pass
    m.wait_until(lambda: those.lines().count('worker hears "hello"') == 2, "the message, at both workers")
    assert not any(line.startswith("b hears") for line in those.lines())


#
# Reload
#


def test_unchanged_stays(ready, those):
    """With the same configuration it is the same process, whatever else is new."""
    m = ready(beside_programs(those.agent("a", "ready")), app=those.app("ready"))
    m.write_config(beside_programs(those.agent("a", "ready"), workers=3), app=those.app("ready", environment="NEW = 1;"))
    reload(m)
    reloaded(m, 3)
    assert those.events().count("a start") == 1
    assert not Process(those.pids("a")[0]).ended()


def test_new_one_comes_first(ready, those, tmp_path):
    """No worker of the new generation before it is ready."""
    one = gate(tmp_path)
    m = ready(beside_programs(), app=those.app("ready"))
    m.write_config(agents(those.agent("a", "ready"), those.agent("b", "ready", f"gate={one}")))
    reload(m)
    with stands_at(m, one):
        assert those.events()[4:] == ["a start", "a ready", "b start"]
    reloaded(m)
    assert those.events()[4:9] == ["a start", "a ready", "b start", "b ready", "worker start"]


def test_new_one_fails(ready, those, tmp_path):
    """Then nothing is new: the workers and agents that were there go on, and what was started for the reload is ended."""
    (tmp_path / "broken").touch()
    m = ready(beside_programs(those.agent("a", "ready")), app=those.app("ready"))
    before = {w.pid for w in m.worker_processes()}
    m.write_config(agents(those.agent("b", "ready"), those.agent("c", f"fails={tmp_path / 'broken'}")))
    reload(m)
    reloaded(m, generation=1, also="; reload failed: agent c exited with status 3")
    those.wait(m, "b ended")
    m.wait_until(lambda: {w.pid for w in m.worker_processes()} == before, "the end of what was started for the reload")
    assert "a end" not in those.events() and those.events().count("worker start") == 2

    # The next attempt begins anew.
    (tmp_path / "broken").unlink()
    m.write_config(agents(those.agent("b", "ready"), those.agent("c", "ready")))
    reload(m)
    reloaded(m, generation=3)
    those.wait(m, "a ended")
    assert those.events().count("b start") == 2


def test_reload_fails_in_a_worker(ready, those, tmp_path):
    """A new agent goes with the generation that it came for."""
    (tmp_path / "broken").touch()
    m = ready(beside_programs(), app=those.app("ready"))
    m.write_config(beside_programs(those.agent("a", "ready")), app=those.app(f"fails={tmp_path / 'broken'}"))
    reload(m)
    reloaded(m, generation=1, also="; reload failed: worker 1 exited with status 3")
    those.wait(m, "a ended")


def test_reload_fails_beside_one_that_serves(ready, those, tmp_path):
    """A worker of it that was ready finishes what it has, and may need the agent for that."""
    last = gate(tmp_path)
    (tmp_path / "broken2").touch()
    m = ready(beside_programs(), app=those.app("ready"))
    m.write_config(beside_programs(those.agent("a", "ready")), app=those.app("ready", f"last={last}", f"fails={tmp_path}/broken%{{worker}}"))
    reload(m)
    reloaded(m, generation=1, also="; reload failed: worker 2 exited with status 3")
    with stands_at(m, last):
        elapse(m, 0.2)
        assert "a end" not in those.events()
    those.wait(m, "a ended")
    assert those.events().index("worker ended") < those.events().index("a end")


def test_new_one_dies_in_the_trial(ready, those, tmp_path):
    """As long as the generation is not committed, its agents are on trial, too."""
    one = gate(tmp_path)
    m = ready(beside_programs(), app=those.app("ready"))
    m.write_config(beside_programs(those.agent("a", "ready")), app=those.app("ready", f"gate={one}"))
    reload(m)
    with stands_at(m, one):
        os.kill(those.pids("a")[0], signal.SIGKILL)
        reloaded(m, generation=1, also="; reload failed: agent a was killed by signal 9, SIGKILL")
    assert those.events().count("a start") == 1


def without_agent(ready, those, last):
    """After a reload without the agent `a`, which waits for a worker that has been told to end and stands at the gate."""
    m = ready(beside_programs(those.agent("a", "ready"), workers=1), app=those.app("ready", f"last={last}"))
    m.write_config(beside_programs(workers=1), app=those.app("ready"))
    reload(m)
    reloaded(m, 1)
    return m


def test_removed_one_waits_for_the_old_workers(ready, those, tmp_path):
    """Who finishes requests may need it; then it goes."""
    last = gate(tmp_path)
    m = without_agent(ready, those, last)
    with stands_at(m, last):
        elapse(m, 0.2)
        assert "a end" not in those.events()
    those.wait(m, "a ended")
    assert those.events().index("worker ended") < those.events().index("a end")
    m.wait_until(lambda: len(m.children()) == 1, "the worker alone")


def test_wanted_again_in_time(ready, those, tmp_path):
    """One that still waits for its end is not touched when the next reload wants it."""
    last = gate(tmp_path)
    m = without_agent(ready, those, last)
    m.write_config(agents(those.agent("a", "ready"), workers=1))
    with stands_at(m, last):
        reload(m)
        m.wait_message("READY=1")
    those.wait(m, "worker ended", 2)
    elapse(m, 0.2)
    assert [e for e in those.events() if e.startswith("a ")] == ["a start", "a ready"]


def test_wanted_again_while_the_old_workers_go(ready, those, tmp_path):
    """Nor is it in the middle of that reload, whose commit may want it or not."""
    last, one = gate(tmp_path, "last"), gate(tmp_path, "one")
    m = without_agent(ready, those, last)
    m.write_config(beside_programs(those.agent("a", "ready"), workers=1), app=those.app("ready", f"gate={one}"))
    reload(m)
    with stands_at(m, one):
        with stands_at(m, last):
            pass
        wait_said(m, "exited with status 0.")
        elapse(m, 0.2)
    reloaded(m, 1, 3)
    assert [e for e in those.events() if e.startswith("a ")] == ["a start", "a ready"]


def test_wanted_again_and_killed(ready, those, tmp_path):
    """It has a successor at once, and the generation that wants it has one."""
    last, one = gate(tmp_path, "last"), gate(tmp_path, "one")
    m = without_agent(ready, those, last)
    m.write_config(beside_programs(those.agent("a", "ready", "new"), workers=1), app=those.app("ready", f"gate={one}"))
    reload(m)
    with stands_at(m, one):
        os.kill(those.pids("a")[0], signal.SIGKILL)
        those.wait(m, "a ready", 2)
    reloaded(m, 1, 3)
    with stands_at(m, last):
        pass
    wait_said(m, "exited with status 0.")
    elapse(m, 0.2)
    assert [e for e in those.events() if e.startswith("a ")] == ["a start", "a ready"] * 2
    assert pathlib.Path(f"/proc/{those.pids('a')[1]}/cmdline").read_bytes().endswith(b"new\0")


def test_wanted_again_and_killed_before_the_workers(ready, those, tmp_path):
    """Then they wait for its successor."""
    last, one = gate(tmp_path, "last"), gate(tmp_path, "one")
    m = without_agent(ready, those, last)
    m.write_config(beside_programs(those.agent("a", "ready"), those.agent("b", "ready", f"gate={one}"), workers=1), app=those.app("ready"))
    n = len(those.events())
    reload(m)
    with stands_at(m, one):
        os.kill(those.pids("a")[0], signal.SIGKILL)
        those.wait(m, "a ready", 2)
    reloaded(m, 1, 3)
    events = those.events()[n:]
    assert events.index("b start") < events.index("a ready") < events.index("worker start")
    with stands_at(m, last):
        pass


def test_wanted_again_too_late(ready, those, tmp_path):
    """One that has been told to end is in the way of the next: that is started when the place is free."""
    last = gate(tmp_path)
    m = ready(beside_programs(those.agent("a", "ready", f"last={last}")), app=those.app("ready"))
    m.write_config(agents())
    reload(m)
    m.wait_message("READY=1")
    those.wait(m, "a end")
    m.write_config(agents(those.agent("a", "ready")))
    reload(m)
    with stands_at(m, last):
        elapse(m, 0.2)
        assert those.events().count("a start") == 1
    reloaded(m, generation=3)
    own = [e for e in those.events() if e.startswith("a ")]
    assert own == ["a start", "a ready", "a end", "a ended", "a start", "a ready"]


def test_changed_one_is_replaced(ready, those, tmp_path):
    """When the workers of before have gone, the old process ends, and only then the new one begins."""
    last = gate(tmp_path)
    m = ready(beside_programs(those.agent("a", "ready"), workers=1), app=those.app("ready", f"last={last}"))
    m.write_config(beside_programs(those.agent("a", "ready", "new"), workers=1), app=those.app("ready"))
    reload(m)
    m.wait_message("READY=1")
    with stands_at(m, last):
        elapse(m, 0.2)
        assert those.events().count("a start") == 1 and "a end" not in those.events()
    those.wait(m, "a ready", 2)
    assert [e for e in those.events() if e.startswith("a ")] == ["a start", "a ready", "a end", "a ended", "a start", "a ready"]
    assert pathlib.Path(f"/proc/{those.pids('a')[1]}/cmdline").read_bytes().endswith(b"new\0")
    m.wait_status(well(1, 2))
    # It is what it was told, and no death.
    assert "early" not in m.stderr()


def test_changed_one_does_not_start(ready, those, tmp_path):
    """That is found out after the commit: the workers go on, and it is said and tried again."""
    broken = tmp_path / "broken"
    broken.touch()
    m = ready(beside_programs(those.agent("a", "ready")), app=those.app("ready"))
    m.write_config(agents(those.agent("a", "ready", f"fails={broken}"), also='restart: { backoff_min = "50ms"; backoff_max = "50ms"; };'))
    reload(m)
    m.wait_message("READY=1")
    m.wait_status(lambda s: s.startswith(well(2, 2) + "; agent a is ") and s.endswith(": it exited with status 3"))
    broken.unlink()
    m.wait_status(well(2, 2))


def test_changed_one_cannot_be_started(ready, those):
    """That there is no such variable is known before the commit, which then does not come."""
    m = ready(beside_programs(those.agent("a", "ready")), app=those.app("ready"))
    m.write_config(agents(those.agent("a", "ready", "%{env:NOT_THERE}")))
    line = next(i for i, text in enumerate(m.config_file.read_text().splitlines(), 1) if "NOT_THERE" in text)
    reload(m)
    why = f'{m.config_file}:{line}: agents.command: found "%{{env:NOT_THERE}}", expected the name of a variable of musterd\'s own environment'
    reloaded(m, generation=1, also=f"; reload failed: agent a cannot be started: {why}")
    assert those.events().count("a start") == 1 and "a end" not in those.events()


def test_killed_before_it_is_replaced(ready, those, tmp_path):
    """One that dies by itself meanwhile comes back as it is configured now."""
    last = gate(tmp_path)
    m = ready(beside_programs(those.agent("a", "ready"), workers=1), app=those.app("ready", f"last={last}"))
    m.write_config(beside_programs(those.agent("a", "ready", "new"), workers=1), app=those.app("ready"))
    reload(m)
    m.wait_message("READY=1")
    with stands_at(m, last):
        os.kill(those.pids("a")[0], signal.SIGKILL)
        those.wait(m, "a ready", 2)
        assert pathlib.Path(f"/proc/{those.pids('a')[1]}/cmdline").read_bytes().endswith(b"new\0")
    m.wait_until(lambda: those.events().count("worker ended") == 1, "the old worker's end")
    elapse(m, 0.2)
    assert those.events().count("a start") == 2


#
# What is told
#


def muster(m, *arguments):
    r = subprocess.run([MUSTER, f"--socket={m.control_path}", *arguments], capture_output=True, text=True, timeout=30)
    assert r.returncode == 0, r.stderr
    return r.stdout


def test_status_and_exits(ready, those, folder):
    """`muster status` has a row for each, `muster exits` their ends, and --json both."""
    m = ready(agents(those.agent("a", "ready"), those.agent("b", "ready")),
              sockets=[("http", tcp()), ("control", unix(folder / "control"))])
    m.control_path = folder / "control"
    pid = those.pids("a")[0]
    status = json.loads(muster(m, "--json", "status", "web"))
    assert [a["name"] for a in status["agents"]] == ["a", "b"]
    found = status["agents"][0]
    assert (found["state"], found["pid"], found["generation"], found["status"], found["failure"], found["retry_in_usec"]) == (
        "ready", pid, 1, "fine", None, None)
    assert status["workers"] == {"wanted": 2, "ready": 2, "failing": 0}
    assert len(status["processes"]) == 2
    text = muster(m, "status", "web")
    assert "agents: 2/2 ready\n" in text
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["a"])
    assert row[1] == str(pid) and "ready" in row and row[-1] == "fine"

    os.kill(pid, signal.SIGKILL)
    those.wait(m, "a ready", 2)
    ends = json.loads(muster(m, "--json", "exits", "web"))["exits"]
    assert [(e["agent"], e["slot"], e["pid"], e["cause"], e["signal"]) for e in ends] == [("a", None, pid, "crashed", "SIGKILL")]
    assert " a  " in muster(m, "exits", "web").splitlines()[1]


def test_failing_in_status(ready, those, folder):
    broken = folder / "broken"
    m = ready(agents(those.agent("a", "ready", f"fails={broken}"), also='restart: { backoff_min = "20s"; backoff_max = "20s"; };'),
              sockets=[("http", tcp()), ("control", unix(folder / "control"))])
    m.control_path = folder / "control"
    broken.touch()
    os.kill(those.pids("a")[0], signal.SIGKILL)
    wait_said(m, "died early 2 times in a row, trying again in 20s.")
    (found,) = json.loads(muster(m, "--json", "status", "web"))["agents"]
    assert (found["state"], found["pid"], found["early_deaths"], found["failure"]) == ("waiting", None, 2, "exited with status 3")
    assert 15_000_000 < found["retry_in_usec"] <= 20_000_000
    text = muster(m, "status", "web")
    assert "agents: 0/1 ready\n" in text and "exited with status 3; next try in " in text and "died early 2 times" in text


def test_idle_costs_nothing(ready, those):
    """An agent that does nothing wakes nobody up."""
    m = ready(agents(those.agent("a", "ready", settings='watchdog = "0";'), settings='watchdog = "0";'), notify=True)
    agent = Process(those.pids("a")[0])
    before = agent.switches()
    elapse(m, 1)
    assert agent.switches() == before


@pytest.mark.skipif(not REDIS, reason="there is no redis-server")
def test_redis(ready, folder):
    """The real one: it says itself when it is ready, when it goes, and how it is."""
    sock = folder / "redis.sock"
    redis = command(REDIS, "--port", 0, "--unixsocket", sock, "--supervised", "systemd", "--dir", folder, "--save", "")
    m = ready(agents(f'{{ name = "redis"; command = {redis}; wait_ready = true; }}'),
              sockets=[("http", tcp()), ("control", unix(folder / "control"))])
    m.control_path = folder / "control"
    assert sock.is_socket()
    (found,) = json.loads(muster(m, "--json", "status", "web"))["agents"]
    assert (found["state"], found["status"]) == ("ready", "Ready to accept connections")

    # It ends by itself, on request of somebody else: that is no end for ever.
    subprocess.run(["redis-cli", "-s", sock, "shutdown", "nosave"], timeout=30)
    m.wait_until(lambda: m.stderr().count(" is ready.") == 4, "the next one")
    (new,) = json.loads(muster(m, "--json", "status", "web"))["agents"]
    assert new["pid"] != found["pid"]
    m.kill()
    assert m.wait_exit() == 0
    assert not sock.exists()
