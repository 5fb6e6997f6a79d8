# SPDX-License-Identifier: MIT
"""max_requests, max_memory, max_age: a worker that reaches a limit is replaced, before it is told to go, and never killed."""

import json
import pathlib
import re
import time

from harness import Process
from lifecycle import Asking, assert_always, begin, connected, pids, tell, wait_said

AT_ONCE = 'restart: { backoff_min = "1ms"; backoff_max = "20ms"; limit = 0; };'


def settings(text, count=1, jitter=0):
    return f"workers: {{ count = {count}; jitter = {jitter}; {text} }};\n{AT_ONCE}"


def command_line(process):
    return pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes().decode().split("\0")


def assert_gently(m):
    """Nobody was killed, nothing counted as a death."""
    said = m.stderr()
    assert "killed" not in said and "killing" not in said and "trying again" not in said and "died early" not in said


def test_max_requests(ready):
    """The real worker serves that many at least, and not many more: until the next one is there."""
    m = ready(settings("max_requests = 20;"))
    since = len(m.statuses())
    counts = {}
    for _ in range(4):
        (worker,) = m.worker_processes()
        # no longer, or its successor may have answered as many before this one has ended
        while f"Worker 1 (pid {worker.pid}) is to be replaced: it has answered workers.max_requests." not in m.stderr():
            answer = m.whoami()
            counts[answer["pid"]] = answer["requests"]
        wait_said(m, f"Worker 1 (pid {worker.pid}) exited with status 0.")
        assert counts[worker.pid] >= 19  # its own count, before this answer
        m.wait_until(lambda: len(pids(m)) == 1, "the next one alone")
    assert m.stderr().count("is to be replaced") == m.stderr().count("exited with status 0.")
    assert_always(m, "1/1 workers ready", since)
    assert_gently(m)


def test_not_before(ready):
    """One request less, and it stays."""
    m = ready(settings("max_requests = 20;"))
    (worker,) = m.worker_processes()
    with connected(m, worker.pid) as client:  # that was the first
        for _ in range(17):
            assert client.request("/").status == 200
        answer = json.loads(client.request("/whoami").body)
        assert m.worker_of(answer["pid"]) == worker.pid and "is to be replaced" not in m.stderr()
        assert client.request("/").status == 200
    wait_said(m, f"Worker 1 (pid {worker.pid}) is to be replaced: it has answered workers.max_requests.")
    worker.wait_end()


def test_max_requests_under_clients(ready):
    """Worker after worker under clients: nobody misses an answer, STATUS never knows of a gap."""
    m = ready(settings("max_requests = 40;", count=2, jitter=50))
    since = len(m.statuses())
    with Asking(m):
        wait_said(m, "exited with status 0.", 8)
    assert_always(m, "2/2 workers ready", since)
    assert_gently(m)


def test_max_memory(ready, tmp_path):
    """Looked at every tick; what it uses and the limit are told. The next one has a clean slate."""
    m = begin(ready, tmp_path, settings('max_memory = "160M"; watchdog = "1h";'), watchdog_usec=200_000)
    since = len(m.statuses())
    (old,) = m.worker_processes()
    tell(m, "/leak?mib=8")
    for _ in range(3):
        m.wait_message("WATCHDOG=1")
    assert not old.ended() and "is to be replaced" not in m.stderr()
    assert tell(m, "/leak?mib=200") == str(200 << 20)
    old.wait_end()
    wait_said(m, f"Worker 1 (pid {old.pid}) exited with status 0.")
    why = re.search(rf"Worker 1 \(pid {old.pid}\) is to be replaced: it uses (\d+)([KM]) of memory, more than 160M\.", m.stderr())
    assert why and 160 << 20 < int(why[1]) << (10 if why[2] == "K" else 20) < 400 << 20
    for _ in range(3):
        m.wait_message("WATCHDOG=1")
    assert len(pids(m)) == 1 and m.stderr().count("is to be replaced") == 1
    assert m.whoami()["pid"] != old.pid
    assert_always(m, "1/1 workers ready", since)
    assert_gently(m)


def test_max_memory_of_one_of_two(ready, tmp_path):
    """Only the one that is too large goes."""
    m = begin(ready, tmp_path, settings('max_memory = "160M"; watchdog = "1h";', count=2), watchdog_usec=200_000)
    large = Process(m.whoami()["pid"], m)
    (small,) = pids(m) - {large.pid}
    with connected(m, large.pid) as client:
        assert client.request("/leak?mib=200").status == 200
    large.wait_end()
    wait_said(m, " is ready.", 3)
    assert small in pids(m) and m.stderr().count("is to be replaced") == 1
    assert m.get().status == 200


def test_max_age(ready):
    """Again and again, never before its time."""
    born_after = time.monotonic()
    m = ready(settings('max_age = "600ms";'))
    since = len(m.statuses())
    for _ in range(3):
        old = m.wait_until(m.worker_processes, "a worker")[0]
        old.wait_end()
        assert time.monotonic() - born_after >= 0.6
        born_after += 0.6  # the next one was born when this one had had its time
        wait_said(m, f"Worker 1 (pid {old.pid}) exited with status 0.")
        assert f"Worker 1 (pid {old.pid}) is to be replaced: it is older than 600ms." in m.stderr()
        m.wait_until(lambda: pids(m) and old.pid not in pids(m), "the next one")
    assert_always(m, "1/1 workers ready", since)
    assert_gently(m)


def test_max_age_under_clients(ready):
    """Nobody misses an answer over it."""
    m = ready(settings('max_age = "300ms";', count=2, jitter=50))
    since = len(m.statuses())
    with Asking(m):
        wait_said(m, "exited with status 0.", 6)
    assert_always(m, "2/2 workers ready", since)
    assert_gently(m)


# Jitter


def test_jitter_of_requests(ready):
    """Each worker has a number of its own, up to so many per cent below the limit, and so has the next one."""
    m = ready(settings("max_requests = 1000000;", count=12, jitter=50))

    def limits():
        found = [int(a.split("=")[1]) for w in m.worker_processes() for a in command_line(w) if a.startswith("--max-requests=")]
        assert len(found) == 12 and all(500_000 <= n <= 1_000_000 for n in found), found
        return found

    first = limits()
    assert len(set(first)) > 6
    assert max(first) - min(first) > 100_000  # with odds of 10^-7 against it
    old = m.worker_processes()
    m.kill(1)
    m.wait_message("READY=1")
    for worker in old:
        worker.wait_end()
    assert set(limits()) != set(first)


def test_no_jitter(ready):
    """0: all have the very limit. And without a limit there is no word of it."""
    m = ready(settings("max_requests = 1000000;", count=3))
    assert all("--max-requests=1000000" in command_line(w) for w in m.worker_processes())
    m.write_config("workers: { count = 3; jitter = 50; };")
    m.kill(1)
    m.wait_message("READY=1")
    m.wait_until(lambda: len(pids(m)) == 3, "the new ones alone")
    assert not any("--max-requests" in a for w in m.worker_processes() for a in command_line(w))


def test_jitter_of_age(ready):
    """Workers that started together do not go together: their limits, as told when they are reached, differ."""
    m = ready(settings('max_age = "1s";', count=8, jitter=50))
    first = m.worker_processes()
    for worker in first:
        worker.wait_end()
    ages = [re.search(rf"\(pid {w.pid}\) is to be replaced: it is older than (\S+)\.\n", m.stderr())[1] for w in first]
    assert len(set(ages)) > 2, ages
    assert_gently(m)
