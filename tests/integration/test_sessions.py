# SPDX-License-Identifier: MIT
"""The example of packaging/examples/sessions, as it is: an Express app whose workers share their sessions, by a Redis of its own."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest
from node_app import NODE

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "packaging/examples/sessions"

pytestmark = pytest.mark.skipif(not shutil.which("redis-server") or not os.access(NODE, os.X_OK),
                                reason="there is no redis-server, or no Node")


class Sessions:
    """The directories that systemd would make, and the app deployed as web.conf has it, but for the place."""

    def __init__(self, folder, modules):
        self.app = pathlib.Path(shutil.copytree(EXAMPLE, folder / "app"))
        (self.app / "node_modules").symlink_to(modules)
        self.environment = {}
        for name in "RUNTIME_DIRECTORY", "STATE_DIRECTORY":
            path = folder / name.split("_")[0].lower()
            path.mkdir()
            self.environment[name] = str(path)
        conf = self.app / "web.conf"
        text = conf.read_text()
        assert text.count('directory = "/srv/web";') == 1
        conf.write_text(text.replace('"/srv/web"', f'"{self.app}"') + "workers: { count = 2; };\n")

    def start(self, ready):
        return ready("agents: ();", command=[self.app / "web.conf"], environment=self.environment)


@pytest.fixture
def sessions(packages, apps):
    with tempfile.TemporaryDirectory() as path:  # a short one, for sockets
        yield Sessions(pathlib.Path(path), (apps / "node_modules").resolve())


class Browser:
    """Who comes back with the cookie that it was given."""

    def __init__(self):
        self.cookie = None

    def visit(self, m):
        headers = ["Connection: close"] + ([f"Cookie: {self.cookie}"] if self.cookie else [])
        with contextlib.closing(m.connect()) as client:
            answer = client.request("/", headers=headers)
        assert answer.status == 200, answer.body
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].split(";")[0]
        found = json.loads(answer.body)
        return found["views"], found["worker"]


def redis_of(m):
    return next(p for p in m.worker_processes() if pathlib.Path(f"/proc/{p.pid}/comm").read_text().startswith("redis"))


def info(sessions, section):
    """What the Redis says of itself; nothing, if there is none."""
    sock = f"{sessions.environment['RUNTIME_DIRECTORY']}/redis.sock"
    return subprocess.run(["redis-cli", "-s", sock, "info", section], capture_output=True, text=True, timeout=30).stdout


def is_written(sessions):
    """Whether it has handed all of its data to the kernel."""
    said = info(sessions, "persistence")
    return "aof_buffer_length:0\n" in said and "aof_pending_bio_fsync:0\n" in said


def test_sessions(sessions, ready):
    """One session over all workers; it outlives the Redis, which comes back by itself, and the whole app."""
    m = sessions.start(ready)
    browser, other = Browser(), Browser()
    seen, views = set(), 0

    def visit():
        nonlocal views
        count, worker = browser.visit(m)
        views += 1
        assert count == views
        seen.add(worker)
        return len(seen) == 2

    m.wait_until(visit, "answers of both workers")
    assert other.visit(m)[0] == 1

    redis, workers = redis_of(m), {p.pid for p in m.worker_processes()}
    m.wait_until(lambda: is_written(sessions), "the end of what Redis writes")
    redis.kill(signal.SIGKILL)
    m.wait_status(lambda s: "; agent redis is " in s)
    m.wait_status(lambda s: s.startswith("2/2 workers ready") and "agent" not in s)
    # both workers, and who asks: before a worker has noticed that the connection is gone it answers with an error
    m.wait_until(lambda: "connected_clients:3\n" in info(sessions, "clients"), "the connections of both workers")
    visit()
    visit()
    assert {p.pid for p in m.worker_processes()} == workers - {redis.pid} | {redis_of(m).pid}

    m.kill()
    assert m.wait_exit() == 0
    assert m.stderr().count("exited with status 0.") == 3
    m = sessions.start(ready)
    visit()
    assert other.visit(m)[0] == 2


def test_variables(sessions, ready):
    """Whoever wants the store finds it by either name; nothing of it is printed."""
    m = sessions.start(ready)
    url = f"redis+unix://{sessions.environment['RUNTIME_DIRECTORY']}/redis.sock"
    for worker in m.worker_processes():
        if worker.pid == redis_of(m).pid:
            continue
        environment = worker.environment()
        assert (environment["REDIS_URL"], environment["MUSTER_STATE_URL"]) == (url, url)
