# SPDX-License-Identifier: MIT
"""Each worker has a NOTIFY_SOCKET of its own: sd_notify(3) towards the master, which alone speaks to systemd."""

import contextlib
import os
import pathlib
import shutil
import signal
import time

import pytest
from harness import Process
from lifecycle import begin, connected, elapse, gate, pids, tell, wait_said

ONE = 'workers: { count = 1; };\nrestart: { backoff_min = "1ms"; };'

# A stand-in for programs in other languages.
NOTIFY = """
import socket, subprocess

def notify(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(text if isinstance(text, bytes) else text.encode(), os.environ["NOTIFY_SOCKET"])
    s.close()

def wait_gate():
    with open(os.environ["GATE"]) as f:
        return f.read()
"""


def start_program(start, tmp_path, body, config=ONE, **kwargs):
    """A worker of Python lines; m.gate is a FIFO for its wait_gate()."""
    at = gate(tmp_path)
    m = start(config, worker=NOTIFY + body, environment={"GATE": str(at), **kwargs.pop("environment", {})}, **kwargs)
    m.gate = at
    return m


def open_gate(m, text=""):
    with open(m.gate, "w") as f:
        f.write(text)


def wait_status_of(m, text, slot=1):
    m.wait_until(lambda: m.statuses()[-1].endswith(f"; worker {slot}{text}"), f"worker {slot}{text}")


# What a worker is given


def test_environment(ready, tmp_path):
    """An address of its own, not the master's, in a directory for the master alone, which is gone afterwards."""
    m = begin(ready, tmp_path, 'workers: { count = 2; watchdog = "7s"; };')
    addresses = set()
    for w in m.worker_processes():
        env = w.environment()
        address = pathlib.Path(env["NOTIFY_SOCKET"])
        assert address.is_socket() and address.parent.stat().st_mode & 0o777 == 0o700
        assert (env["WATCHDOG_USEC"], env.get("WATCHDOG_PID", str(w.pid))) == ("7000000", str(w.pid))
        addresses.add(address)
    assert len(addresses) == 2 and m.dir / "notify" not in addresses
    first = m.worker_processes()[0]
    its_address = pathlib.Path(first.environment()["NOTIFY_SOCKET"])
    first.kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("1/2"))
    m.wait_status(lambda s: s.startswith("2/2"))
    assert not its_address.exists()  # each process has its own, so that nobody speaks for the next one
    directory = its_address.parent
    m.kill()
    assert m.wait_exit() == 0
    assert not directory.exists()


def test_without_its_directory(ready, tmp_path):
    """Somebody has tidied up: workers that can have no NOTIFY_SOCKET serve all the same, and the master survives their end."""
    m = begin(ready, tmp_path, 'workers: { count = 1; };')
    (first,) = m.worker_processes()
    shutil.rmtree(pathlib.Path(first.environment()["NOTIFY_SOCKET"]).parent)
    for _ in range(2):
        m.worker().kill(signal.SIGKILL)
        m.wait_status(lambda s: s.startswith("0/1"))
        m.wait_status(lambda s: s.startswith("1/1"))
    assert "Failed to make a NOTIFY_SOCKET for worker 1" in m.stderr()
    assert "NOTIFY_SOCKET" not in m.worker_processes()[0].environment()


# READY


@pytest.mark.parametrize("mode", ["notify", "channel"])
def test_ready(start, tmp_path, mode):
    """Not before it says so."""
    at = gate(tmp_path)
    m = begin(start, tmp_path, ONE, f"gate={at} {mode}")
    with open(at, "w"):
        m.wait_status("Starting: 0/1 workers ready")
        assert not any("READY=1" in text for _, text in m.messages)
    assert m.wait_ready() == "READY=1\nSTATUS=1/1 workers ready, 0 connections, generation 1"
    assert m.get().status == 200


def test_never_ready(start, tmp_path):
    """Who says everything else but that is late."""
    m = start_program(start, tmp_path, 'notify("STATUS=almost\\nWATCHDOG=1")\nnotify("READY=0")\nwait_for_ever()\n',
                      'workers: { count = 1; start_timeout = "300ms"; };')
    assert m.wait_exit() == 1
    assert "was killed: not ready within 300ms" in m.statuses()[-1]


@pytest.mark.skipif(not shutil.which("systemd-notify"), reason="there is no systemd-notify here")
@pytest.mark.parametrize("options", ["--no-block", ""])
def test_systemd_notify_from_a_shell(start, tmp_path, options):
    """systemd itself may lose what a shell's systemd-notify says, as its sender is gone before it is read. Here not."""
    body = f"""
done = subprocess.run(["sh", "-c", "systemd-notify {options} --ready '--status=up and running'"])
open(os.environ["DONE"], "w").write(str(done.returncode))
wait_for_ever()
"""
    done = gate(tmp_path, "done")
    m = start_program(start, tmp_path, "wait_gate()\n" + body, environment={"DONE": str(done)})
    m.wait_status("Starting: 0/1 workers ready")
    if options:  # it does not wait for anybody, so that it is gone when the master gets to read
        m.kill(signal.SIGSTOP)
    open_gate(m)
    assert done.read_text() == "0"
    m.kill(signal.SIGCONT)
    m.wait_ready()
    wait_status_of(m, ": up and running")


def test_from_a_daemon(ready, tmp_path):
    """A grandchild in a session of its own, whose parent is gone: the address alone says whose it is."""
    body = """
notify("READY=1")
wait_gate()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        notify("STATUS=from afar")
    os._exit(0)
wait_for_ever()
"""
    m = start_program(ready, tmp_path, body)
    open_gate(m)
    wait_status_of(m, ": from afar")


def test_last_words(ready, tmp_path):
    """What it says and then dies is read, though the process is gone."""
    m = start_program(ready, tmp_path, "notify('READY=1')\nwait_gate()\nnotify('ERRNO=28')\nos._exit(1)\n")
    (worker,) = m.worker_processes()
    m.kill(signal.SIGSTOP)
    open_gate(m)
    worker.wait_end()
    m.kill(signal.SIGCONT)
    wait_said(m, f"Worker 1 (pid {worker.pid}) exited with status 1: No space left on device.")


# STATUS


def test_status(ready, tmp_path):
    """In the master's own STATUS, that of each worker; an empty one is taken back, the next worker has none."""
    m = begin(ready, tmp_path, "workers: { count = 2; };")
    assert tell(m, "/notify?STATUS=half%20way") == "sent"
    m.wait_status(lambda s: s.endswith(": half way"))
    for w in m.worker_processes():
        slot = w.environment()["MUSTER_WORKER"]
        with connected(m, w.pid) as client:
            assert client.request(f"/notify?STATUS=I%20am%20{slot}").status == 200
    m.wait_status(lambda s: s.endswith("; worker 1: I am 1; worker 2: I am 2"))
    for w in m.worker_processes():
        if w.environment()["MUSTER_WORKER"] == "1":
            w.kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("2/2") and s.endswith("generation 1; worker 2: I am 2"))
    for w in m.worker_processes():
        with connected(m, w.pid) as client:
            assert client.request("/notify?STATUS=").status == 200
    m.wait_status(lambda s: s.endswith("generation 1"))


def test_status_by_the_channel(ready, tmp_path):
    """The same, for who has the channel anyway; what JSON escapes arrives, what would break a line does not."""
    m = begin(ready, tmp_path, ONE)
    tell(m, "/status?50%25%20%22done%22%20%C3%A4")
    wait_status_of(m, ': 50% "done" ä')
    tell(m, "/status?a%0AREADY=1%07b")
    m.wait_until(lambda: "READY=1" in m.statuses()[-1], "the next one")
    assert sum("READY=1" in text.split("\n") for _, text in m.messages) == 1
    assert all(s.isprintable() for s in m.statuses())


def test_long_status(ready, tmp_path):
    """Of many workers, in many bytes for a character: cut, and always what systemd takes as text."""
    m = begin(ready, tmp_path, "workers: { count = 6; };")
    for i, w in enumerate(m.worker_processes()):
        with connected(m, w.pid) as client:
            assert client.request("/notify?STATUS=" + "x" * i + "%E2%82%AC" * 180).status == 200
    m.wait_until(lambda: m.statuses()[-1].count("€") > 150, "a long STATUS")
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    m.wait_ready()  # each message was decoded strictly by the harness
    assert max(len(text.encode()) for _, text in m.messages) < 1024


# RELOADING, STOPPING


def test_reloading(ready, tmp_path):
    """A worker that reloads by itself is still ready; STATUS tells of it until it says READY=1."""
    m = begin(ready, tmp_path, ONE)
    tell(m, "/notify?RELOADING=1")
    wait_status_of(m, " (reloading): -")
    assert m.statuses()[-1].startswith("1/1 workers ready")
    tell(m, "/notify?STATUS=new%20keys")
    wait_status_of(m, " (reloading): new keys")
    tell(m, "/notify?READY=1")
    wait_status_of(m, ": new keys")
    assert "RELOADING=1" not in str(m.messages)  # for systemd the service does not


def test_stopping(ready, tmp_path):
    """It goes by itself: the next one starts at once, and the old one has stop_timeout."""
    m = begin(ready, tmp_path, 'workers: { count = 1; stop_timeout = "500ms"; };\nrestart: { backoff_min = "1ms"; };')
    (old,) = m.worker_processes()
    with contextlib.closing(m.connect()) as client:
        client.send(b"GET /notify?STOPPING=1 HTTP/1.1\r\nHost: x\r\n\r\n")  # it may be gone before it answers
        m.wait_status(lambda s: s.startswith("0/1"))
        m.wait_status(lambda s: s.startswith("1/1"))
        old.wait_end()  # it has not gone, in spite of its word
    wait_said(m, f"Worker 1 (pid {old.pid}) was killed: not finished within 500ms.")
    assert m.whoami()["pid"] != old.pid
    assert "STOPPING=1" not in str(m.messages)


# EXTEND_TIMEOUT_USEC


def test_slow_start(start, tmp_path):
    """It asks for more time than start_timeout: it gets it, and systemd is asked for it too."""
    m = start_program(start, tmp_path, 'notify("EXTEND_TIMEOUT_USEC=30000000")\nwait_gate()\nnotify("READY=1")\nwait_for_ever()\n',
                      'workers: { count = 1; start_timeout = "4s"; };')
    m.wait_message("EXTEND_TIMEOUT_USEC=35000000")
    elapse(m, 4.2)
    open_gate(m)
    m.wait_ready()
    assert "killing it" not in m.stderr()


def test_slow_start_ends(start, tmp_path):
    """The time that it asked for counts: past it, it is killed."""
    m = start_program(start, tmp_path, 'notify("EXTEND_TIMEOUT_USEC=700000")\nwait_for_ever()\n',
                      'workers: { count = 1; start_timeout = "200ms"; };')
    began = time.monotonic()
    assert m.wait_exit() == 1
    assert "was killed: not ready within" in m.stderr()
    assert time.monotonic() - began >= 0.2


def test_less_is_no_less(start, tmp_path):
    """An extension does not shorten."""
    m = start_program(start, tmp_path, 'notify("EXTEND_TIMEOUT_USEC=1000")\nwait_gate()\nnotify("READY=1")\nwait_for_ever()\n')
    m.wait_message("EXTEND_TIMEOUT_USEC=5001000")
    elapse(m, 0.1)
    open_gate(m)
    m.wait_ready()


def test_slow_stop(ready, tmp_path):
    """Likewise for stop_timeout, while it finishes what is open."""
    m = begin(ready, tmp_path, 'workers: { count = 1; stop_timeout = "5s"; };')
    with contextlib.closing(m.connect()) as slow, contextlib.closing(m.connect()) as asking:
        slow.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        asking.send(b"GET /notify?EXTEND_TIMEOUT_USEC=40000000 HTTP/1.1\r\nHost: x\r\n")
        m.wait_connections(2)
        m.kill()
        m.wait_message("STOPPING=1")
        asking.send(b"\r\n")
        assert asking.answer().status == 200
        m.wait_message("EXTEND_TIMEOUT_USEC=45000000")
        elapse(m, 5.2)
        slow.send(b"\r\n")
        assert slow.answer().status == 200
    assert m.wait_exit() == 0
    assert "did not finish" not in m.stderr()


# BARRIER, descriptors


@pytest.mark.parametrize("text", ["", "?STATUS=with%20a%20descriptor", "?FDSTORE=1", "?nonsense", "?BARRIER=1%0ASTATUS=x", "?STATUS=%FF"])
def test_descriptors_are_closed(ready, tmp_path, text):
    """BARRIER=1 is answered so; and whatever else a descriptor comes with, it does not stay in the master."""
    m = begin(ready, tmp_path, ONE)
    before = len(m.process.fds())
    assert tell(m, "/barrier" + text) == "closed"
    m.wait_until(lambda: len(m.process.fds()) <= before, "as many descriptors as before")


def test_barrier_comes_after_what_was_said_before(ready, tmp_path):
    """Who has its answer knows that all earlier messages were read."""
    m = begin(ready, tmp_path, ONE)
    for i in range(5):
        with contextlib.closing(m.connect()) as client:
            assert client.request(f"/notify?STATUS=number%20{i}").status == 200
            assert client.request("/barrier").body == b"closed\n"
        m._receive()
        assert m.statuses()[-1].endswith(f"; worker 1: number {i}")


# What is refused

BAD = {
    "too long": ("b'STATUS=bad ' + b'x' * 5000", "refused a notification from process %d of more than 4096 bytes."),
    "no text": (r"b'STATUS=bad \xff'", "refused a notification from process %d that is not UTF-8 text."),
    "a value": ("b'STATUS=good\\nWATCHDOG=bad'", 'a notification'),
}


@pytest.mark.parametrize("message, line", BAD.values(), ids=list(BAD))
def test_refused(ready, tmp_path, message, line):
    """It is said, once, and what is well is heard afterwards as before."""
    m = start_program(ready, tmp_path, f"notify('READY=1')\nwait_gate()\nfor _ in range(200):\n    notify({message})\n"
                      "notify('STATUS=good again')\nwait_for_ever()\n")
    (worker,) = m.worker_processes()
    open_gate(m)
    wait_status_of(m, ": good again")
    assert (line % worker.pid if "%" in line else line) in m.stderr()
    lines = [text for text in m.stderr().splitlines() if "notification" in text]
    assert len(lines) == 1, lines[:3]
    assert not any("bad" in s for s in m.statuses())


def test_unknown_is_ignored(ready, tmp_path):
    """What means nothing here is what other service managers know."""
    m = begin(ready, tmp_path, ONE)
    tell(m, "/notify?MAINPID=1%0AX_OURS=2%0AFDNAME=x%0ASTATUS=well%0AWATCHDOG_USEC=5")
    wait_status_of(m, ": well")
    assert "notification" not in m.stderr()
    assert pids(m) == {w.pid for w in m.worker_processes()}


FLOOD = """
notify("READY=1")
wait_gate()
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
n = 0
while True:
    n += 1
    s.send(MESSAGE)
"""


@pytest.mark.parametrize("message", ["b'WATCHDOG=1'", "b'STATUS=%d' % n", "b'x' * 4096", "b'WATCHDOG=nonsense'", "b'RELOADING=1' if n % 2 else b'READY=1'"])
def test_flood(ready, tmp_path, message):
    """Without end, as fast as it can: the master has its time for systemd, for the other workers and for a stop."""
    m = start_program(ready, tmp_path, FLOOD.replace("MESSAGE", message), ONE.replace("count = 1", 'count = 1; stop_timeout = "1s"'),
                      watchdog_usec=1_000_000)
    open_gate(m)
    began, cpu = time.monotonic(), m.process.cpu_seconds()
    for _ in range(4):
        m.wait_message("WATCHDOG=1", timeout=10)
    used = (m.process.cpu_seconds() - cpu) / (time.monotonic() - began)
    assert used < 0.5, f"{used:.0%} of a CPU"
    assert len(m.stderr().splitlines()) < 20
    m.kill()
    assert m.wait_exit() == 0
