# SPDX-License-Identifier: MIT
"""How many workers there are, and what each of them is given: these descriptors, this environment, nothing else."""

import json
import math
import os
import pathlib
import resource
import signal
import subprocess

import pytest
from harness import MUSTERD, inode


def quota_cpus():
    """What cpu.max grants this process; infinite without a limit."""
    least = math.inf
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            folder = pathlib.Path("/sys/fs/cgroup", line[4:])
            for place in (folder, *folder.parents):
                try:
                    quota, period = (place / "cpu.max").read_text().split()
                except (OSError, ValueError):
                    continue
                if quota != "max":
                    least = min(least, math.ceil(int(quota) / int(period)))
    return least


def test_one_per_cpu(ready):
    """count = "auto" is the CPUs that the service may use."""
    cpus = min(len(os.sched_getaffinity(0)), quota_cpus())
    m = ready(workers=0)
    assert len(m.children()) == cpus
    assert m.statuses()[-1] == f"{cpus}/{cpus} workers ready, 0 connections, generation 1"


def test_affinity_of_one(ready):
    """Bound to one CPU it is one worker."""
    m = ready(workers=0, affinity={min(os.sched_getaffinity(0))})
    assert len(m.children()) == 1


@pytest.mark.parametrize("count", [1, 2, 7])
def test_count(ready, count):
    """A number in the configuration is the number."""
    m = ready(workers=count)
    assert len(m.children()) == count
    slots = sorted(int(w.environment()["MUSTER_WORKER"]) for w in m.worker_processes())
    assert slots == list(range(1, count + 1))


def test_all_answer(ready):
    """Connections end up with every worker, each of which tells who it is."""
    m = ready(workers=2)
    pids = set(m.children())
    seen = set()
    # the one that took the last connection keeps it, so that the other one's turn comes
    held = []

    def ask():
        if len(held) == 500:  # one of them does not get to run
            held.pop(0).close()
        held.append(m.connect())
        answer = held[-1].request("/whoami")
        assert answer.status == 200
        who = json.loads(answer.body)
        assert who["app"] == "web" and who["generation"] == 1 and who["slot"] in (1, 2)
        seen.add(m.worker_of(who["pid"]))
        return seen == pids

    m.wait_until(ask, "an answer of each")
    for client in held:
        client.close()


# What a keeper has open, and who serves with it: its children's, its bell, its signals and theirs.
KEEPERS = "anon_inode:[pidfd]", "anon_inode:[eventfd]", "anon_inode:[signalfd]"


def descriptors(worker):
    """Without who it is."""
    return {number: target.replace(str(worker.pid), "PID") for number, target in worker.fds().items()}


@pytest.mark.parametrize("stray", [0, 5], ids=["clean", "with-strays"])
def test_descriptors(ready, stray):
    """0, 1, 2, the sockets from 3 up, board, bell, channel, both ends of both inboxes, and what the worker opened itself: its
    loop's, its keeper's and its folder. Nothing leaks, even of what was open in the master without O_CLOEXEC."""
    m = ready(sockets=None, stray=stray)
    sock = m.socket_list[0][1]
    channels, inboxes = set(), set()
    for worker in m.worker_processes():
        fds = worker.fds()
        assert worker.environment()["MUSTER_INBOX_FDS"] == "7:2"
        assert fds.pop(0) == "/dev/null"
        assert fds.pop(1) == fds.pop(2) == str(m.stderr_file)
        assert fds.pop(3) == f"socket:[{inode(sock)}]"
        assert fds.pop(4) == "/memfd:muster-board (deleted)"
        assert fds.pop(5) == "anon_inode:[eventfd]"
        channel = fds.pop(6)
        assert channel.startswith("socket:") and channel not in channels, "each has a channel of its own"
        channels.add(channel)
        inboxes.add(tuple(fds.pop(fd) for fd in range(7, 11)))
        own = [own for own in fds.values() if own not in KEEPERS and not own.endswith("/children")]
        assert len(own) == len(set(own))
        assert {"anon_inode:[eventpoll]", str(m.site)} <= set(own)
        assert set(own) <= {"anon_inode:[eventpoll]", "anon_inode:[timerfd]", str(m.site)}
    (shared,) = inboxes
    assert len(set(shared)) == 4 and all(end.startswith("socket:") for end in shared) and not channels & set(shared)


def test_replacement_gets_the_same(ready):
    """A worker that was started later has the same descriptors as the first ones."""
    m = ready(workers=1, stray=3)
    old = m.worker_processes()[0]
    before = descriptors(old)
    old.kill(9)
    m.wait_status("0/1 workers ready, 0 connections, generation 1; worker 1 was killed by signal 9, SIGKILL")
    m.wait_status("1/1 workers ready, 0 connections, generation 1")
    (new,) = m.worker_processes()
    assert new.pid != old.pid
    after = descriptors(new)
    assert after.pop(6) != before.pop(6), "the channel is its own"
    assert after == before


def test_environment(ready):
    """Its identity; the master's own environment; a NOTIFY_SOCKET of its own and none of what systemd said to the master."""
    m = ready(environment={"TEST_KEPT": "yes", "MAINPID": "1", "MANAGERPID": "1"}, watchdog_usec=60_000_000)
    notify_sockets = set()
    for worker in m.worker_processes():
        env = worker.environment()
        assert env["MUSTER_APP"] == "web"
        assert env["MUSTER_WORKER"] in "12"
        assert env["MUSTER_GENERATION"] == "1"
        assert env["LISTEN_FDS"] == "1"
        assert env["LISTEN_FDNAMES"] == "http"
        assert env["TEST_KEPT"] == "yes"
        assert env["WATCHDOG_USEC"] == "10000000"
        assert env["NOTIFY_SOCKET"] not in (*notify_sockets, m.env["NOTIFY_SOCKET"])
        notify_sockets.add(env["NOTIFY_SOCKET"])
        assert pathlib.Path(env["NOTIFY_SOCKET"]).is_socket()
        for name in ("WATCHDOG_PID", "MAINPID", "MANAGERPID"):
            assert name not in env


def test_signals_are_at_their_defaults(ready):
    """The master blocks signals for its loop and ignores SIGPIPE; a worker starts with neither."""
    m = ready(worker="set_state(READY)\nwait_for_ever()\n", workers=1)
    (worker,) = m.worker_processes()
    status = dict(l.split(":\t", 1) for l in pathlib.Path(f"/proc/{worker.pid}/status").read_text().splitlines() if ":\t" in l)
    assert int(status["SigBlk"], 16) == 0
    # Python itself ignores SIGPIPE and SIGXFSZ, after it was started
    assert int(status["SigIgn"], 16) & ~(1 << 12 | 1 << 24) == 0


def test_many_workers_and_few_descriptors(ready, tmp_path, monkeypatch):
    """systemd's soft limit of 1024 would be too little for 256 workers and those that follow them. The master raises its own,
    and a worker finds what the service was given."""
    script = tmp_path / "musterd"
    script.write_text(f'#!/bin/sh\nulimit -S -n 100\nexec {MUSTERD} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr("harness.MUSTERD", script)
    m = ready("http: { max_connections = 10; }; static: { file_cache = 0; };", workers=16)
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    assert m.wait_ready() == "READY=1\nSTATUS=16/16 workers ready, 0 connections, generation 2"
    m.wait_until(lambda: len(m.worker_processes()) == 16, "the old ones are gone")
    for worker in m.worker_processes():
        assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)[0] == 100


def can_run_as(uid):
    """Whether that user can reach what was built."""
    return subprocess.run([MUSTERD, "--version"], user=uid, group=uid, extra_groups=[], capture_output=True).returncode == 0


def test_master_is_not_dumpable(ready):
    """The one that starts all cannot be read or traced by its workers, who are the same user: its files in /proc are root's,
    theirs are not."""
    uid = os.geteuid()
    if uid == 0:
        uid = 65534
        try:
            reachable = can_run_as(uid)
        except OSError:
            reachable = False
        if not reachable:
            pytest.skip("the build directory is for root alone")
    m = ready(workers=1, uid=uid if os.geteuid() == 0 else None)
    assert os.stat(f"/proc/{m.pid}/environ").st_uid == 0
    assert os.stat(f"/proc/{m.children()[0]}/environ").st_uid == uid
