# SPDX-License-Identifier: MIT
"""Modules with state in the embedded store, whose processes are killed at the worst moments."""

import concurrent.futures
import contextlib
import os
import signal
import subprocess

import pytest

from module_harness import MODULES, ModuleWorker, connected
from worker_harness import BUILD_DIR, READY

PLUGINS = (BUILD_DIR / "src/state").resolve()
LEASE = 1.0


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def worker(store, *options):
    environment = {"MUSTER_STATE_URL": f"lmdb:{store}?sync=none", "MUSTER_PLUGINDIR": str(PLUGINS)}
    return ModuleWorker(MODULES / "state.so", *options, environment=environment).wait_state(READY).wait_twin()


def file_size(store):
    return (store / "data.mdb").stat().st_size


def test_two_workers_share(store):
    with worker(store) as a, worker(store) as b:
        assert [w.text("/add?key=n") for w in (a, b, a)] == ["1", "2", "3"]
        assert b.text("/get?key=n") == "3"
        assert a.get("/get?key=none").body == b"ENOENT"


def test_killed_with_an_open_transaction(store):
    """A dead reader's slot is given back by who takes over; else no page that it saw is ever used again, and the file grows."""
    with worker(store) as a, worker(store) as b:
        assert b.text("/fill?key=v&n=100") == "full"
        for _ in range(2):
            # six deaths with one request are its end
            assert a.get("/die?key=v").status == 500
            a.wait_twin()
        before = file_size(store)
        assert b.text("/fill?key=v&n=2000") == "full"
        assert file_size(store) < before + 64 * 4096
        assert a.text("/get?key=v") == b.get("/get?key=v").body.decode()


@pytest.mark.parametrize("who", ["serving", "keeper"])
def test_killed_while_it_writes(store, who):
    """Two writers; one is killed again and again. No sum is told twice, and the other one never waits for the dead."""
    n_kills = int(os.environ.get("MUSTER_STATE_KILLS", 20))
    sums = []

    def add(w, n):
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(connected(w))
            for _ in range(n):
                answer = client.request("/add?key=sum")
                assert answer.status == 200, answer.body
                sums.append(int(answer.body))

    with worker(store) as b, contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(2) as pool:
        a = stack.enter_context(worker(store))
        for _ in range(n_kills):
            jobs = [pool.submit(add, b, 200)]
            if who == "serving":
                jobs.append(pool.submit(add, a, 200))
                a.kill_serving()
                a.wait_twin()
            else:
                os.kill(a.pid, signal.SIGKILL)
                a.wait_exit()
                stack.pop_all().close()
                a = stack.enter_context(worker(store))
                assert a.text("/add?key=other")
            for job in jobs:
                job.result(timeout=60)
        total = int(b.text("/get?key=sum"))
    assert len(set(sums)) == len(sums)
    # what a killed process has added and not answered is added again by who takes over
    assert len(sums) <= total <= len(sums) + n_kills


def test_lease_goes_on(store):
    """The process that has the lease is killed: another one has it, with a higher number, and never both."""
    with worker(store) as a, worker(store) as b:
        workers, fences = [a, b], []
        for _ in range(3):
            held = []

            def ask():  # it may be lost, and be the other's, while they are asked one after the other
                first, second, again = (int(w.text("/lease")) for w in (a, b, a))
                held[:] = first, second
                return first == again and any(held)

            a.wait_until(ask)
            assert sum(fence > 0 for fence in held) == 1
            fences.append(max(held))
            workers[held.index(max(held))].kill_serving()
        assert fences == sorted(set(fences))


def test_paused_owner(store):
    """Who was stopped while another one took over knows that it has lost the lease before it does anything."""
    with worker(store) as a, worker(store) as b:
        a.wait_until(lambda: int(a.text("/lease")) or int(b.text("/lease")))
        owner, other = (a, b) if int(a.text("/lease")) else (b, a)
        first = int(owner.text("/lease"))
        pid = owner.serving
        os.kill(pid, signal.SIGSTOP)
        try:
            with connected(owner) as client:
                client.send(b"GET /lease HTTP/1.1\r\nHost: a\r\n\r\n")
                other.wait_until(lambda: int(other.text("/lease")) > first)
                os.kill(pid, signal.SIGCONT)
                assert client.answer().body == b"0"
        finally:
            os.kill(pid, signal.SIGCONT)


def test_store_that_is_away(store):
    """What does not need the store is served."""
    store.mkdir()
    (store / "data.mdb").write_bytes(b"this is no database\n" * 1000)
    with worker(store) as w:
        assert w.text("/") == "without the store"
        w.wait_until(lambda: "damaged" in w.stderr())
        (store / "data.mdb").unlink()
        assert w.text("/add?key=n") == "1"


def test_required_store(store):
    store.mkdir()
    (store / "data.mdb").write_bytes(b"this is no database\n" * 1000)
    environment = {"MUSTER_STATE_URL": f"lmdb:{store}", "MUSTER_PLUGINDIR": str(PLUGINS), "MUSTER_STATE_REQUIRED": "1"}
    with ModuleWorker(MODULES / "state.so", environment=environment) as w:
        assert w.wait_exit() == 1
        assert "Bad message" in w.stderr()


def test_exact_sum(store):
    """Two processes add to one number with many additions under way, and are killed all the time: no addition is lost, and none is done twice."""
    n = os.environ.get("MUSTER_STATE_ADDITIONS", "100000")
    environment = {**os.environ, "MUSTER_PLUGINDIR": str(PLUGINS)}
    argv = [BUILD_DIR / "tests/integration/state_adder", f"lmdb:{store}?sync=none", n]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=240)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr


class App:
    """Of workers with the module, under the master."""

    def __init__(self, ready, store, n, **environment):
        environment = {"MUSTER_PLUGINDIR": PLUGINS, **environment}
        variables = " ".join(f'{name} = "{value}";' for name, value in environment.items())
        self.m = ready(f'workers: {{ count = {n}; }}; state: {{ url = "lmdb:{store}?sync=none"; }};', app=f'kind = "module"; module = "{MODULES}/state.so"; environment = {{ {variables} }};')
        self.n, self.heard = n, {}

    def ask(self, target):
        with contextlib.closing(self.m.connect()) as client:
            return client.request(target).body.decode()

    def look(self):
        """At what one worker has heard, whichever answers."""
        pid, *lines = self.ask("/heard").split()
        self.heard[int(pid)] = lines
        return self.heard

    def wait_heard(self, texts):
        """In whichever order: there is none between what several workers publish."""
        self.m.wait_until(lambda: sum(sorted(lines[-len(texts):]) == sorted(texts) for lines in self.look().values()) == self.n, f"everybody hears {texts}")


@pytest.mark.parametrize("n", [1, 3])
def test_messages_reach_all_workers(ready, store, n):
    """What one worker publishes each hears once, itself included; so does a process that has taken over."""
    app = App(ready, store, n)
    app.wait_heard(["*"])
    assert [app.ask(f"/publish?text=a{i}") for i in range(10)] == ["told"] * 10
    app.wait_heard(["*", *(f"a{i}" for i in range(10))])
    before = app.m.serving(app.m.worker_processes()[0])
    before.kill(signal.SIGKILL)
    app.m.wait_until(lambda: len(app.look()) == n + 1 and all(app.heard.values()), "another process listens in its place")
    del app.heard[before.pid]
    assert [app.ask(f"/publish?text=b{i}") for i in range(10)] == ["told"] * 10
    app.wait_heard([f"b{i}" for i in range(10)])


def test_lease_is_handed_on(ready, store):
    """One that is given back is had by another worker at once, long before its time would be over."""
    app = App(ready, store, 2, STATE_LEASE_MSEC=3600000)
    app.wait_heard(["*"])
    fences = set()
    app.m.wait_until(lambda: fences.add(int(app.ask("/lease"))) or len(fences) == 2, "one of them has it")
    first = max(fences)
    app.m.wait_until(lambda: app.ask("/release") == "released", "the one that has it is asked")
    app.m.wait_until(lambda: int(app.ask("/lease")) > first, "the other one has it")
