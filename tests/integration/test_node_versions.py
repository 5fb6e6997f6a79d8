# SPDX-License-Identifier: MIT
"""Every version of Node that is looked after: serving, a reload, a death, a hang, shared and passed sockets."""

import contextlib
import os
import signal
import subprocess

import pytest

import load
from node_app import APPS, begin, block, connection_to, instances, pid_of, served_by, tell, workers
from test_reload import reload

NODE_VERSIONS = APPS.parents[2] / "node-versions"
VERSIONS = os.environ.get("MUSTER_NODE_VERSIONS", "18 20 22 24").split()


@pytest.fixture(scope="module")
def programs():
    """Version to path, of those that there are."""
    r = subprocess.run([NODE_VERSIONS], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    return dict(line.split(" ", 1) for line in r.stdout.splitlines()), r.stderr.strip()


@pytest.fixture(params=VERSIONS, ids="v{}".format)
def node(request, programs):
    found, why = programs
    if request.param not in found:
        pytest.skip(why or f"there is no Node {request.param}")
    return found[request.param]


def deed_pid(m):
    return pid_of(m, "/pid")


def pids(m):
    return {w.pid for w in m.worker_processes()}


def test_framework(ready, apps, packages, node):
    """ECMAScript modules and express."""
    m = begin(ready, apps, "esm.mjs", node=node)
    assert served_by(m, 2) == pids(m)


@pytest.mark.parametrize("balance", ["round-robin", "inherit"])
def test_life(ready, apps, node, balance):
    """It serves, by all workers if they are passed connections; nothing fails at a reload; one that is killed is replaced; at the
    end, who waits is answered and who is idle is let go."""
    m = begin(ready, apps, "deeds.js", workers(f'balance = "{balance}"; stop_timeout = "1h";'), node=node)
    with load.of(m, connections=0, fresh=2, limit=15) as clients:
        for _ in range(2):
            clients.wait(20)
            reload(m)
            m.wait_ready()
        clients.wait(20)
    clients.check()
    victim = instances(m)[0]
    victim.kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("1/2"))
    m.wait_status(lambda s: s.startswith("2/2"))
    assert deed_pid(m) in pids(m) - {victim.pid}
    if balance == "round-robin":
        assert served_by(m, 2, deed_pid) == pids(m)
    m.kill()
    assert m.wait_exit() == 0
    assert m.stderr().count("SIGKILL") == 1  # which was ours


@pytest.mark.parametrize("balance", ["round-robin", "inherit"])
def test_hangs(ready, apps, node, balance):
    """The ping is answered by an idle worker, and by one that hangs it is not."""
    m = begin(ready, apps, "deeds.js", workers(f'balance = "{balance}"; watchdog = "2s";', 1), node=node)
    (victim,) = m.worker_processes()
    for _ in range(2):  # ticks
        m.wait_until(lambda: deed_pid(m) == victim.pid, "an answer")
    with contextlib.closing(block(m, victim.pid)):
        victim.wait_end()
    assert f"(pid {victim.pid}) did not react for 2s" in m.stderr()
    assert deed_pid(m) != victim.pid


def test_again(ready, apps, node):
    """Closed and opened again."""
    m = begin(ready, apps, "deeds.js", workers=1, node=node)
    (worker,) = m.worker_processes()
    with contextlib.closing(tell(m, worker.pid, "/again")) as client:
        assert client.answer().body == b"ok\n"
    m.wait_until(lambda: f"again {worker.pid}\n" in m.stderr(), "another listen()")
    connection_to(m, worker.pid).close()
