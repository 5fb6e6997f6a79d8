# SPDX-License-Identifier: MIT
"""What a client of a Node app may lose: the request that a worker was executing when it died, and nothing else. Whoever was
passed to a worker that has not taken it goes to another one, and is never left waiting."""

import contextlib
import os
import signal

import pytest

import load
from harness import Process
from lifecycle import elapse, wait_said
from node_app import Gate, ask, begin, block, instances, pid_of, tell, wait_accepted, workers
from test_reload import reload

RELOADS = int(os.environ.get("MUSTER_TEST_RELOADS", 10))
KILLS = int(os.environ.get("MUSTER_TEST_KILLS", 5))
HANGS = int(os.environ.get("MUSTER_TEST_HANGS", 1))

# A killed worker is replaced at once, however often a test does that.
AT_ONCE = 'restart: { backoff_min = "1ms"; backoff_max = "1ms"; limit = 0; };\n'


def deeds(start, apps, settings="", count=2, **kwargs):
    return begin(start, apps, "deeds.js", workers(settings, count) + AT_ONCE, **kwargs)


def short_connections(m):
    """Constant load, with a connection for each request. On a slow machine an answer may be late; what is lost never comes."""
    return load.of(m, connections=0, fresh=4, limit=15)


def waiting(m, n=12):
    """So many connections, each with a request, all of which the master has taken from the queue."""
    clients = [ask(m, "/pid") for _ in range(n)]
    wait_accepted(m)
    return clients


def answers_of(clients):
    """The pids of those that have answered, every one."""
    pids = []
    for client in clients:
        with contextlib.closing(client):
            answer = client.answer()
        assert answer.status == 200
        pids.append(int(answer.body.split(b'"pid":')[1].split(b",")[0]))
    return pids


#
# Reload
#


@pytest.mark.parametrize("balance", ["round-robin", "inherit"])
def test_reload(ready, apps, balance):
    """One after the other, under load: not one request fails."""
    m = deeds(ready, apps, f'balance = "{balance}";')
    with short_connections(m) as clients:
        for generation in range(2, RELOADS + 2):
            clients.wait(20)
            reload(m)
            assert f"generation {generation}" in m.wait_ready()
        clients.wait(20)
    clients.check()


def test_reload_with_kept_connections(ready, apps):
    """Node closes a kept connection in the moment that it is idle, without a word before: a request may cross with that, which a
    client has to bear with every server of Node's. Nothing worse happens."""
    m = deeds(ready, apps)
    with load.of(m, connections=4, fresh=0, limit=15) as clients:
        for _ in range(3):
            clients.wait(20)
            reload(m)
            m.wait_ready()
        clients.wait(20)
    account = clients.stop()
    assert set(kind for kind, n in account.failed.items() if n) <= {"closed", "reset"}, str(account)
    assert account.failures <= 3 * 4, str(account)


#
# Death
#


def test_killed_under_load(ready, apps):
    """SIGKILL, again and again: only what was executed fails, of which a client has one at a time; nobody is refused or waits."""
    m = deeds(ready, apps)
    with short_connections(m) as clients:
        for n in range(KILLS):
            clients.wait(20)
            instances(m)[n % 2].kill(signal.SIGKILL)
            m.wait_status(lambda s: s.startswith("1/2"))
            m.wait_status(lambda s: s.startswith("2/2"))
        clients.wait(20)
    account = clients.stop()
    assert set(kind for kind, n in account.failed.items() if n) <= {"closed", "reset"}, str(account)
    assert account.failures <= KILLS * 4, str(account)


def test_executing(ready, apps, tmp_path):
    """The one request that it had begun is lost, at once, and no other."""
    with Gate(tmp_path) as gate:
        m = deeds(ready, apps, environment=gate.environment)
        victim = instances(m)[0]
        lost, other = tell(m, victim.pid, "/slow"), tell(m, instances(m)[1].pid, "/slow")
        gates = dict(gate.wait() for _ in range(2))
        victim.kill(signal.SIGKILL)
        with pytest.raises((EOFError, ConnectionResetError)):
            lost.answer()
        gates.pop(victim.pid)()
        (go_on,) = gates.values()
        go_on()
        assert other.answer().body == b"slow\n"


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGSEGV])
def test_passed_to_the_dead(ready, apps, signo):
    """Connections on the way to a worker that blocks, and is then killed: all are answered by others, once each."""
    m = deeds(ready, apps)
    victim, other = instances(m)[0], instances(m)[1]
    blocked = block(m, victim.pid)
    other.kill(signal.SIGSTOP)
    clients = waiting(m)
    victim.kill(signo)
    other.kill(signal.SIGCONT)
    assert victim.pid not in answers_of(clients)
    with pytest.raises((EOFError, ConnectionResetError)):
        blocked.answer()
    m.wait_status(lambda s: s.startswith("2/2"))


def test_the_only_worker_dies(ready, apps):
    """With nobody else they wait for the next one, are not refused, and need no further connection that would wake the master."""
    m = deeds(ready, apps, count=1)
    (victim,) = instances(m).values()
    block(m, victim.pid)
    clients = waiting(m)
    victim.kill(signal.SIGKILL)
    (successor,) = set(answers_of(clients))
    assert successor != victim.pid


def test_more_than_is_passed(ready, apps):
    """More than a worker is passed at a time: the rest waits in the socket's queue, and is answered when there is somebody."""
    m = deeds(ready, apps, count=1)
    (victim,) = instances(m).values()
    block(m, victim.pid)
    clients = [ask(m, "/pid") for _ in range(200)]
    victim.kill(signal.SIGKILL)
    assert victim.pid not in answers_of(clients)


#
# Hanging
#


@pytest.mark.parametrize("balance", ["round-robin", "least-lag", "source"])
def test_hangs(ready, apps, balance):
    """An endless loop in an app that knows nothing of a watchdog: it is found and replaced, and who waited for it is answered."""
    m = deeds(ready, apps, f'watchdog = "2s"; balance = "{balance}";')
    for n in range(1, HANGS + 1):
        m.get("/block-after")
        m.wait_until(lambda n=n: m.stderr().count("blocked ") == n, "the end of an event loop")
        blocked = int(m.stderr().split("blocked ")[-1].split("\n")[0])
        victim = Process(blocked, m)
        assert blocked not in answers_of([ask(m, "/pid") for _ in range(12)])
        victim.wait_end()
        wait_said(m, f"(pid {blocked}) did not react for 2s, replacing it.")
        m.wait_until(lambda: sorted(instances(m)) == [0, 1], "two workers, with the same instances")


def test_hangs_while_nobody_asks(ready, apps):
    """Found by the master's own question."""
    m = deeds(ready, apps, 'watchdog = "2s";', count=1)
    (victim,) = instances(m).values()
    block(m, victim.pid)
    victim.wait_end()
    assert pid_of(m, "/pid") != victim.pid


@pytest.mark.parametrize("balance", ["round-robin", "inherit"])
def test_idle_ones_are_left_alone(ready, apps, balance):
    """A healthy worker that nobody asks answers for itself, for more than the time."""
    m = deeds(ready, apps, f'watchdog = "2s"; balance = "{balance}";')
    before = {w.pid for w in m.worker_processes()}
    elapse(m, 5)
    assert {w.pid for w in m.worker_processes()} == before and "react" not in m.stderr()


def test_late_master(ready, apps):
    """All stand still, as on a machine that was suspended, while a question is under way: nobody is accused of the time."""
    m = deeds(ready, apps, 'watchdog = "3s";', count=1)
    (worker,) = m.worker_processes()
    worker.kill(signal.SIGSTOP)
    elapse(m, 3.8)  # the question comes after two looks, at half of the time each
    m.kill(signal.SIGSTOP)
    elapse(m, 3)
    m.kill(signal.SIGCONT)
    elapse(m, 0.2)  # it has looked
    worker.kill(signal.SIGCONT)
    for _ in range(4):
        assert pid_of(m, "/pid") == worker.pid
    assert "react" not in m.stderr()


#
# Refusing
#


def test_max_connections(ready, apps, tmp_path):
    """Workers that take two each, and eight clients: the others wait, all are answered, and nobody is busy with that meanwhile."""
    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "max-connections.js", environment=gate.environment)
        clients = [m.connect() for _ in range(8)]
        for client in clients:
            client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        inside = [gate.wait() for _ in range(4)]
        assert sorted(pid for pid, _ in inside) == sorted(2 * [w.pid for w in m.worker_processes()])
        switches, cpu = m.process.switches(), m.process.cpu_seconds()
        elapse(m, 1)
        assert gate.nobody()
        # Every try is to be paid for by each of the two; an endless exchange made thousands of it.
        assert m.process.switches() - switches < 500 and m.process.cpu_seconds() - cpu < 0.3
        for _ in range(4):
            inside.pop(0)[1]()
            inside.append(gate.wait())
        for _, go_on in inside:
            go_on()
        for client in clients:
            assert client.answer().body == b"slow\n"


def test_burst(ready, apps):
    """500 clients in one moment, each in need of an answer."""
    m = deeds(ready, apps, count=4)
    clients = [m.connect() for _ in range(500)]
    for client in clients:
        client.send(b"GET /pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert set(answers_of(clients)) == {w.pid for w in m.worker_processes()}


def test_client_has_gone(ready, apps):
    """Who hangs up before it was passed on costs nobody anything."""
    m = deeds(ready, apps, count=1)
    (worker,) = m.worker_processes()
    worker.kill(signal.SIGSTOP)
    for _ in range(200):
        m.connect().reset()
    worker.kill(signal.SIGCONT)
    assert pid_of(m, "/pid") == worker.pid


def test_client_says_nothing(ready, apps):
    """A silent connection is a worker's to keep; others are served beside it."""
    m = deeds(ready, apps, count=1)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(contextlib.closing(m.connect())) for _ in range(100)]
        assert m.get("/").body == b"hello\n"
        assert silent[0].request("/").body == b"hello\n"
