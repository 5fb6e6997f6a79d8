# SPDX-License-Identifier: MIT
"""The master of a worker with a twin: what it makes of the deaths that the keeper tells of, and of workers that hang.

Most of it with a stand-in for the keeper, which can do what the real one never would."""

import contextlib
import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import time

import pytest
from harness import MUSTER, Process, tcp, unix

CONFIG = 'workers: { count = 1; watchdog = "0"; start_timeout = "1min"; soak = "20ms"; };\nrestart: { backoff_min = "1ms"; limit = 0; };\n'
KEEPER = "keeper = Keeper()\nset_state(READY)\nkeeper.run()\n"


@pytest.fixture
def controlled(ready, tmp_path):
    """A musterd that can be asked."""

    def start(config=CONFIG, **kwargs):
        sock = tmp_path / "control"
        m = ready(config, sockets=[("http", tcp()), ("control", unix(sock))], **kwargs)
        m.control_path = sock
        return m

    return start


def ask(m, command):
    r = subprocess.run([MUSTER, "--json", f"--socket={m.control_path}", command, "web"], capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


def processes(m):
    return ask(m, "status")["processes"]


def process(m):
    (found,) = processes(m)
    return found


def exits(m):
    return ask(m, "exits")["exits"]


def wait_process(m, condition, what):
    """Until there is one worker, and shown like this."""

    def look():
        found = processes(m)
        return found[0] if len(found) == 1 and condition(found[0]) else None

    return m.wait_until(look, what)


def wait_served(m, other_than=0):
    """Until it has both processes, the first another one than that."""
    return wait_process(m, lambda p: p["worker_pid"] not in (None, other_than) and p["twin_pid"] is not None, "worker and twin")


def wait_takeovers(m, n):
    return wait_process(m, lambda p: p["takeovers"] is not None and p["takeovers"] >= n and p["worker_pid"] and p["twin_pid"], f"{n} take-overs")


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def wait_said(m, text, n=1):
    m.wait_until(lambda: m.stderr().count(text) >= n, f"{text!r} in the log, {n} times")


def test_status(controlled):
    """The pid of the worker is the keeper's; who serves and who stands by are its children."""
    m = controlled(worker=KEEPER)
    p = wait_served(m)
    (keeper,) = m.worker_processes()
    assert p["pid"] == keeper.pid and p["takeovers"] == 0 and p["state"] == "ready"
    assert parent_of(p["worker_pid"]) == parent_of(p["twin_pid"]) == keeper.pid
    assert p["memory_bytes"] > 0 and p["cpu_usec"] is not None
    text = subprocess.run([MUSTER, f"--socket={m.control_path}", "status", "web"], capture_output=True, text=True, check=True).stdout
    columns = re.search(r"^SLOT +PID +WORKER +TWIN .*TAKEOVERS.*\n +1 +(\d+) +(\d+) +(\d+) ", text, re.M)
    assert [int(n) for n in columns.groups()] == [p["pid"], p["worker_pid"], p["twin_pid"]]


def test_status_without(controlled):
    """Where there is no twin these members are null, and the columns are not there."""
    m = controlled(CONFIG.replace("count = 1;", "count = 1; twin = false;"), worker=KEEPER)
    p = process(m)
    assert p["worker_pid"] is p["twin_pid"] is p["takeovers"] is None
    text = subprocess.run([MUSTER, f"--socket={m.control_path}", "status", "web"], capture_output=True, text=True, check=True).stdout
    assert "TWIN" not in text and "TAKEOVERS" not in text


def test_option(ready):
    """The worker is told when it is to have none, and by default nothing."""
    said = 'print(sys.argv[1:], file=sys.stderr)\nset_state(READY)\nwait_for_ever()\n'
    assert "--no-twin" in ready(CONFIG.replace("count = 1;", "count = 1; twin = false;"), worker=said).stderr()
    assert "--no-twin" not in ready(CONFIG, worker=said).stderr()


def test_death(controlled):
    """One line and one record, of the process that died, with its last words; nothing of the slot's changes."""
    m = controlled(worker=KEEPER)
    p = wait_served(m)
    os.kill(p["worker_pid"], signal.SIGKILL)
    after = wait_takeovers(m, 1)
    assert after["pid"] == p["pid"] and after["worker_pid"] != p["worker_pid"] and after["state"] == "ready"
    wait_said(m, f"Worker 1 (pid {p['worker_pid']}) was killed by signal 9, SIGKILL: last words; taken over.")
    (record,) = exits(m)
    assert record["pid"] == p["worker_pid"] and record["slot"] == 1 and record["cause"] == "crashed" and record["signal"] == "SIGKILL"
    assert record["serving_pid"] == record["pid"] and record["taken_over"] is True and record["code"] == "killed"
    assert record["reason"] == "was killed by signal 9, SIGKILL: last words; taken over"
    assert record["cpu_usec"] is None and record["peak_memory_bytes"] is None
    status = ask(m, "status")
    assert status["failure"] is None and status["slots"][0]["early_deaths"] == 0
    assert "trying again" not in m.stderr()
    text = subprocess.run([MUSTER, f"--socket={m.control_path}", "exits", "web"], capture_output=True, text=True, check=True).stdout
    assert "taken over" in text


def test_many_deaths(controlled):
    """However many there are: none of them is one of the slot, which is not failing. The end of the keeper is."""
    m = controlled(CONFIG.replace("limit = 0", "limit = 2"), worker=KEEPER)
    pid = wait_served(m)["pid"]
    killed = []
    for n in range(8):
        p = wait_takeovers(m, n)
        killed.append(p["worker_pid"])
        os.kill(p["worker_pid"], signal.SIGSEGV)
    serving = wait_takeovers(m, 8)["worker_pid"]
    m.wait_until(lambda: [r["pid"] for r in exits(m)] == killed, "all records")
    assert {r["cause"] for r in exits(m)} == {"crashed"}
    assert process(m)["pid"] == pid and "failing" not in m.stderr()
    os.kill(pid, signal.SIGKILL)
    m.wait_until(lambda: [r["taken_over"] for r in exits(m)] == [True] * 8 + [False], "the record of the keeper")
    assert exits(m)[-1]["pid"] == pid and exits(m)[-1]["serving_pid"] == serving
    p = wait_served(m)
    assert p["pid"] != pid and p["takeovers"] == 0


def test_end_of_the_keeper(controlled):
    """All end with it, and are not told as something that was left behind."""
    m = controlled(worker=KEEPER)
    for _ in range(5):
        p = wait_served(m)
        others = [Process(p["worker_pid"], m), Process(p["twin_pid"], m)]
        os.kill(p["pid"], signal.SIGKILL)
        for process_ in others:
            process_.wait_end()
        wait_process(m, lambda q, p=p: q["pid"] != p["pid"], "another worker")
    assert "left" not in m.stderr()


LIAR = """
keeper = Keeper()
set_state(READY)
os.kill(keeper.worker, signal.SIGKILL)
for pid in (os.getppid(), 1, -5, os.getpid()):
    set_worker(pid)
    set_twin(pid)
for i in range(20000):
    add_death(os.getppid(), i * 2654435761 % 65536, "\\033[2J lies\\nREADY=1")
print("told", file=sys.stderr)
wait_for_ever()
"""


def test_lies(controlled):
    """A worker gone mad names processes that are not the keeper's children, and deaths without end: the first are not believed, the
    second bounded."""
    m = controlled(worker=LIAR)
    wait_said(m, "told\n")
    p = process(m)
    assert p["worker_pid"] is None and p["twin_pid"] is None and p["memory_bytes"] > 0
    assert m.stderr().count("; taken over.") <= 1000
    assert "\033" not in m.stderr()
    assert not m.process.ended()
    m.kill(signal.SIGKILL)  # the stand-in would not go


HANGING = """
def serve():
    beat()
    ring()
    wait_for_ever()
keeper = Keeper(serve)
beat()
set_state(READY)
keeper.run()
"""
WATCHED = CONFIG.replace('watchdog = "0"', 'watchdog = "1s"')


def test_hang(controlled):
    """Who serves is ended, by way of the keeper, and taken over from: the slot stays, and its clients need not notice."""
    m = controlled(WATCHED, worker=HANGING)
    p = wait_served(m)
    hung = Process(p["worker_pid"], m)
    hung.wait_end()
    after = wait_takeovers(m, 1)
    assert after["pid"] == p["pid"] and after["state"] == "ready"
    assert f"Worker 1 (pid {hung.pid}) did not react for 1s, ending it; its twin takes over." in m.stderr()
    wait_said(m, f"Worker 1 (pid {hung.pid}) was killed: it did not react for 1s; taken over.")
    assert exits(m)[0]["cause"] == "watchdog" and exits(m)[0]["taken_over"] is True
    assert "replacing it" not in m.stderr()


STUBBORN = HANGING.replace("Keeper(serve)", "Keeper(serve, abort=None)").replace("    beat()\n", "")


def test_hang_that_nobody_ends(controlled):
    """When there is still no sign of life long after that, the keeper goes, too."""
    m = controlled(WATCHED, worker=STUBBORN)
    p = wait_served(m)
    keeper = Process(p["pid"], m)
    keeper.wait_end(timeout=60)
    wait_said(m, f"Worker 1 (pid {p['pid']}) was killed: it did not react for 1s.")
    log = m.stderr()
    first, second = (log.index(text) for text in ("ending it; its twin takes over.", f"Worker 1 (pid {p['pid']}) did not react for 1s, replacing it."))
    assert first < second
    assert wait_served(m, p["worker_pid"])["pid"] != p["pid"]


LATE = """
import socket
class Telling(Keeper):
    def take_over(self, status):
        super().take_over(status)
        print("it has", file=sys.stderr)
def serve():
    signal.sigwait([signal.SIGUSR1])
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"WATCHDOG=trigger", os.environ["NOTIFY_SOCKET"])
    os._exit(3)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
keeper = Telling(lambda: (signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]), serve()))
set_state(READY)
keeper.run()
"""


def test_late_trigger(controlled):
    """That somebody hangs who has died meanwhile is not held against who took over."""
    m = controlled(worker=LATE)
    p = wait_served(m)
    m.kill(signal.SIGSTOP)
    os.kill(p["worker_pid"], signal.SIGUSR1)
    wait_said(m, "it has\n")
    m.kill(signal.SIGCONT)
    wait_said(m, f"Worker 1 (pid {p['worker_pid']}) exited with status 3: last words; taken over.")
    assert wait_takeovers(m, 1)["state"] == "ready"
    assert "ending it" not in m.stderr()


SLOW = """
import fake_worker, socket
fake_worker.add_takeover = lambda: None
def serve():
    if struct.unpack_from("=I", board, CELL * CELL_SIZE + N_DEATHS_OFFSET)[0]:
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"EXTEND_TIMEOUT_USEC=4000000", os.environ["NOTIFY_SOCKET"])
    wait_for_ever()
beat()
keeper = Keeper(serve)
set_state(READY)
keeper.run()
"""


def test_slow_takeover(controlled):
    """Who takes over may ask for more time than workers.start_timeout, as who starts may."""
    m = controlled(WATCHED.replace("1s", "1min"), worker=SLOW)
    p = wait_served(m)
    m.write_config(WATCHED.replace("1min", "500ms"))
    ask(m, "reload")
    p = wait_served(m, p["worker_pid"])
    os.kill(p["worker_pid"], signal.SIGKILL)
    begin = time.monotonic()
    wait_said(m, "ending it; its twin takes over.")
    assert time.monotonic() - begin >= 4


@pytest.mark.parametrize("how", ["stop", "scale", "reload"])
def test_retirement(controlled, how):
    """It is told to the keeper, by SIGTERM, and nothing takes over."""
    m = controlled(CONFIG.replace("count = 1", "count = 2"), worker=KEEPER)
    m.wait_until(lambda: all(p["twin_pid"] for p in processes(m)), "twins")
    before = {p["pid"]: p for p in processes(m)}
    if how == "stop":
        m.kill()
        assert m.wait_exit() == 0
    else:
        r = subprocess.run([MUSTER, f"--socket={m.control_path}", how, "web", *(["1"] if how == "scale" else [])], timeout=60)
        assert r.returncode == 0
    gone = 1 if how == "scale" else 2
    m.wait_until(lambda: sum(f"Worker {n} (pid {pid}) exited with status 0." in m.stderr() for pid in before for n in (1, 2)) == gone, "their ends")
    assert "taken over" not in m.stderr() and "left" not in m.stderr()
    if how != "stop":
        assert all(r["cause"] == "retired" and not r["taken_over"] for r in exits(m))


def test_memory_is_that_of_who_serves(controlled):
    """max_memory goes by the process that serves, and not by the keeper."""
    script = "def serve():\n    large = b'x' * (100 << 20)\n    wait_for_ever()\n" + KEEPER.replace("Keeper()", "Keeper(serve)")
    m = controlled(CONFIG.replace("count = 1;", 'count = 1; max_memory = "90M"; jitter = 0;'), worker=script)
    wait_said(m, "is to be replaced: it uses ")
    assert "more than 90M." in m.stderr()


# With the real keeper


def slots_config(watchdog="0", count=1, more=""):
    return f'workers: {{ count = {count}; watchdog = "{watchdog}"; start_timeout = "1min"; soak = "20ms"; {more} }};\nrestart: {{ backoff_min = "1ms"; limit = 0; }};\n'


def test_real_death(controlled):
    """A client's connection is there afterwards, the slot is as before, and the death is told."""
    m = controlled(slots_config())
    p = wait_served(m)
    with contextlib.closing(m.connect("http")) as client:
        for n in range(1, 6):
            assert client.request("/").status == 200
            os.kill(p["worker_pid"], signal.SIGKILL)
            assert client.request("/").body == b"hello\n"
            q = wait_takeovers(m, n)
            assert q["pid"] == p["pid"] and q["worker_pid"] != p["worker_pid"] and q["state"] == "ready"
            wait_said(m, f"Worker 1 (pid {p['worker_pid']}) was killed by signal 9, SIGKILL; taken over.")
            p = q
        assert q["connections"] == 1 and q["requests"] >= 10
    assert [(r["cause"], r["taken_over"]) for r in exits(m)] == [("crashed", True)] * 5
    assert ask(m, "status")["slots"][0]["early_deaths"] == 0


def notify(m, text):
    (worker,) = m.worker_processes()
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.sendto(text, worker.environment()["NOTIFY_SOCKET"])


@pytest.mark.parametrize("how", ["stopped", "trigger"])
def test_real_hang(controlled, how):
    """Who hangs is ended by the watchdog, and taken over from; a client that waits meanwhile is answered then."""
    m = controlled(slots_config("1s"))
    p = wait_served(m)
    with contextlib.closing(m.connect("http")) as client:
        assert client.request("/").status == 200
        if how == "stopped":
            os.kill(p["worker_pid"], signal.SIGSTOP)
        else:
            notify(m, b"WATCHDOG=trigger")
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer().body == b"hello\n"
        q = wait_takeovers(m, 1)
    said = "did not react for 1s" if how == "stopped" else "said that it hangs"
    assert q["pid"] == p["pid"]
    assert m.stderr().count(f"Worker 1 (pid {p['worker_pid']}) {said}, ending it; its twin takes over.") == 1
    wait_said(m, f"Worker 1 (pid {p['worker_pid']}) was killed: it {said}; taken over.")
    assert exits(m)[0]["cause"] == "watchdog"
    assert "replacing it" not in m.stderr()


def test_stops_by_itself(controlled):
    """Who says that it goes is gone for good: its keeper knows of it, and nobody takes over."""
    m = controlled(slots_config())
    p = wait_served(m)
    notify(m, b"STOPPING=1")
    wait_said(m, f"Worker 1 (pid {p['pid']}) exited with status 0.")
    wait_process(m, lambda q: q["pid"] != p["pid"] and q["state"] == "ready", "another worker")
    assert "taken over" not in m.stderr()


def test_real_watch_goes_on(controlled):
    """After a take-over it is watched as before: the next hang is found too, also of one that is idle."""
    m = controlled(slots_config("1s"))
    for n in range(1, 4):
        p = wait_served(m)
        os.kill(p["worker_pid"], signal.SIGSTOP)
        assert wait_takeovers(m, n)["pid"] == p["pid"]
    assert m.get(name="http").status == 200


def assert_no_keeper_died(m):
    assert not [r for r in exits(m) if not r["taken_over"] and r["cause"] not in ("retired", "max-requests", "abandoned")], exits(m)


def test_reload_meanwhile(controlled):
    """A reload is one, though who starts, who serves and who is told to go are killed all the time."""
    m = controlled(slots_config(count=2))
    m.wait_until(lambda: all(p["twin_pid"] for p in processes(m)), "twins")
    for n in range(2, 7):
        for p in processes(m):
            if p["worker_pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(p["worker_pid"], signal.SIGKILL)
        m.kill(signal.SIGHUP)
        m.wait_message(lambda lines: "READY=1" in lines)
        assert m.get(name="http").status == 200
        m.wait_until(lambda n=n: {p["generation"] for p in processes(m)} == {n}, "the end of the old ones")
    assert_no_keeper_died(m)


def begin_reload(m, watchdog="0"):
    """A reload whose soak does not end, in it: the command, and the new worker."""
    m.write_config(slots_config(watchdog).replace("20ms", "1h"))
    old = wait_served(m)
    command = subprocess.Popen([MUSTER, f"--socket={m.control_path}", "reload", "web"], stderr=subprocess.PIPE, text=True)

    def look():
        found = [p for p in processes(m) if p["pid"] != old["pid"]]
        return found[0] if found and found[0]["state"] == "ready" and found[0]["worker_pid"] and found[0]["twin_pid"] else None

    return old, command, m.wait_until(look, "the new worker")


def assert_reload_failed(m, old, command, reason):
    _, said = command.communicate(timeout=60)
    assert command.returncode != 0 and f"worker 1 {reason}" in said, said
    after = wait_process(m, lambda p: p["pid"] == old["pid"], "the end of the new worker")
    assert after["generation"] == old["generation"] and after["state"] == "ready" and after["worker_pid"] == old["worker_pid"]
    assert f"worker 1 {reason}" in ask(m, "status")["failure"]
    assert m.get(name="http").status == 200
    m.kill()
    assert m.wait_exit() == 0


def test_crash_in_the_soak(controlled):
    """A generation that crashes in its trial is not committed, though its clients have not noticed: the reload fails, and the new
    worker finishes what it has."""
    m = controlled(slots_config())
    old, command, new = begin_reload(m)
    with contextlib.ExitStack() as stack:
        clients = []
        while not next(p for p in processes(m) if p["pid"] == new["pid"])["connections"]:
            clients.append(stack.enter_context(contextlib.closing(m.connect("http"))))
            assert clients[-1].request("/").status == 200 and len(clients) < 200
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\n")
        os.kill(new["worker_pid"], signal.SIGSEGV)
        for client in clients:
            client.send(b"Host: x\r\n\r\n")
            assert client.answer().status == 200
    assert_reload_failed(m, old, command, "was killed by signal 11, SIGSEGV")
    wait_said(m, f"Worker 1 (pid {new['pid']}) exited with status 0.")


def test_hang_in_the_soak(controlled):
    """Nor is one that hangs; its twin takes over first, and then goes."""
    m = controlled(slots_config("1s"))
    old, command, new = begin_reload(m, "1s")
    os.kill(new["worker_pid"], signal.SIGSTOP)
    assert_reload_failed(m, old, command, "did not react for 1s")
    wait_said(m, f"Worker 1 (pid {new['worker_pid']}) was killed: it did not react for 1s; taken over.")
    wait_said(m, f"Worker 1 (pid {new['pid']}) exited with status 0.")


def test_stop_with_a_hang_in_the_soak(controlled):
    """A worker that has failed its trial, and does not die of it, does not outlive a stop."""
    script = f"if GENERATION == 1:\n    real(REAL)\n{STUBBORN}"
    m = controlled(slots_config("1s"), worker=script)
    old, command, new = begin_reload(m, "1s")
    assert command.wait(timeout=60) != 0
    assert {p["pid"]: p["state"] for p in processes(m)} == {old["pid"]: "ready", new["pid"]: "ready"}
    m.kill()
    assert m.wait_exit() == 0
    assert "taken over" not in m.stderr()


def test_crash_in_the_start(start):
    """While others are still starting a crash fails the start, as without a twin."""
    crashing = "if SLOT > 1:\n    wait_for_ever()\nkeeper = Keeper()\nset_state(READY)\nos.kill(keeper.worker, signal.SIGSEGV)\nkeeper.run()\n"
    m = start(CONFIG.replace("count = 1", "count = 2"), worker=crashing)
    assert m.wait_exit() == 1
    assert 'The app "web" cannot start: worker 1 was killed by signal 11, SIGSEGV' in m.stderr()


def test_scale_and_stop_meanwhile(controlled):
    """The slots that are given up are, and a stop is one, in the middle of take-overs as well."""
    m = controlled(slots_config(count=2))
    for n in (4, 1, 3, 1, 2):
        for p in processes(m):
            if p["worker_pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(p["worker_pid"], signal.SIGKILL)
        assert subprocess.run([MUSTER, f"--socket={m.control_path}", "scale", "web", str(n)], timeout=60, capture_output=True).returncode == 0
        m.wait_until(lambda n=n: [p["state"] for p in processes(m)] == ["ready"] * n, f"{n} workers")
    for p in processes(m):
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.kill(p["worker_pid"], signal.SIGKILL)
    m.kill()
    assert m.wait_exit() == 0
    assert "killing it" not in m.stderr() and "left" not in m.stderr()


def test_max_requests_meanwhile(controlled):
    """The limit is one of the slot's worker, whoever serves for it: it is replaced in time, and nobody misses an answer."""
    m = controlled(slots_config(more="max_requests = 50; jitter = 0;"))
    answers = 0
    while m.stderr().count("it has answered workers.max_requests.") < 3:
        p = wait_served(m) if answers % 20 == 10 else None
        if p:
            os.kill(p["worker_pid"], signal.SIGKILL)
        assert m.get(name="http").status == 200
        answers += 1
        assert answers < 1000
    m.wait_until(lambda: m.stderr().count("exited with status 0.") >= 2, "the end of those that were replaced")
    assert "early" not in m.stderr()
    assert_no_keeper_died(m)


# Control groups


def own_group():
    """The control group (v2) of this process, as a path; None: there is none."""
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            for mount in "/sys/fs/cgroup", "/sys/fs/cgroup/unified":
                folder = pathlib.Path(mount, line[4:])
                if (folder / "cgroup.procs").exists():
                    return folder
    return None


@pytest.fixture
def delegated():
    """A group that is ours, as with Delegate=yes: what is started in the block that the fixture's value makes is born there."""
    own = own_group()
    group = own and own / f"muster-test-{os.getpid()}"
    try:
        assert group
        group.mkdir()
        os.setxattr(group, "user.delegate", b"1")
        assert (group / "cgroup.kill").exists()
    except (AssertionError, OSError) as e:
        pytest.skip(f"no control group can be made here: {e}")

    @contextlib.contextmanager
    def inside():
        (group / "cgroup.procs").write_text("0")
        try:
            yield group
        finally:
            (own / "cgroup.procs").write_text("0")

    yield inside
    (group / "cgroup.kill").write_text("1")
    for folder, _, _ in os.walk(group, topdown=False):
        for _ in range(100):
            with contextlib.suppress(FileNotFoundError):
                if "populated 0" in pathlib.Path(folder, "cgroup.events").read_text():
                    break
                with open(pathlib.Path(folder, "cgroup.events")) as f, contextlib.closing(select.epoll()) as e:
                    e.register(f, select.EPOLLPRI)
                    e.poll(0.1)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(folder)


GROUPS = """
fds = [int(n) for n in os.environ["MUSTER_TWIN_CGROUP_FDS"].split(":")]
for name, fd in zip("ab", fds):
    print(name, "is", os.readlink(f"/proc/self/fd/{fd}"), file=sys.stderr)
keeper = Keeper()
for pid, fd in zip((keeper.worker, keeper.twin), fds):
    procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=fd)
    os.write(procs, str(pid).encode())
set_state(READY)
keeper.run()
"""


def group_of(pid):
    """Its name below that of the service."""
    (path,) = (line[3:] for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    return path


@pytest.mark.parametrize("script", [GROUPS, None], ids=["stand-in", "real"])
def test_groups(controlled, delegated, script):
    """Each of the two processes has a group below that of the worker, and its death as a group is one of one process. All of them are
    removed in the end."""
    with delegated() as group:
        m = controlled(worker=script)
    p = wait_served(m)
    (worker,) = group.glob("worker-1.*")
    assert sorted(f.name for f in worker.iterdir() if f.is_dir()) == ["a", "b"]
    if script:
        assert f"a is {worker}/a\n" in m.stderr() and f"b is {worker}/b\n" in m.stderr()
    assert group_of(p["pid"]).endswith(f"/{worker.name}")
    ours, other = (pathlib.Path(group_of(p[pid])).name for pid in ("worker_pid", "twin_pid"))
    assert {ours, other} == {"a", "b"}
    (worker / ours / "cgroup.kill").write_text("1")
    after = wait_takeovers(m, 1)
    assert after["pid"] == p["pid"] and after["worker_pid"] != p["worker_pid"]
    wait_said(m, f"Worker 1 (pid {p['worker_pid']}) was killed by signal 9, SIGKILL")
    m.kill()
    assert m.wait_exit() == 0
    assert not list(group.glob("worker-*"))


def test_one_inherits_none(ready):
    """Without control groups of its own a worker is told of none."""
    m = ready(CONFIG, worker='print("GROUPS", os.environ.get("MUSTER_TWIN_CGROUP_FDS"), file=sys.stderr)\nset_state(READY)\nwait_for_ever()\n')
    assert "GROUPS None\n" in m.stderr()
