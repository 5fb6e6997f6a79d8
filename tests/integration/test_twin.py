# SPDX-License-Identifier: MIT
"""A worker's death is noticed by nobody: under kills at random times no request fails, no byte is wrong, no effect
is made twice. And the client that says so would have noticed. MUSTER_TWIN_SECONDS=600 makes the long run."""

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest
from harness import Master, tcp, unix
from module_harness import connected, send_request
from twin import MODULE, PATIENCE, SEED, Killer, TwinClient, kill_child, killed, make_folder, master_slots, module_worker, static_worker, worker_slots
from worker_harness import DEADLINE, READY, Client, wrapper

SECONDS = int(os.environ.get("MUSTER_TWIN_SECONDS", 0))
TAKEOVERS = int(os.environ.get("MUSTER_TWIN_TAKEOVERS", 12))
MIXES = {
    "any": None,
    "memory": "memory:4,deferred:2,threaded:1,head:1",
    "files": "file:4,head:1",
    "streams": "stream:4,timed:4,sized:2,memory:1",
    "posts": "keyed:6,unkeyed:3,memory:1",
    "bare": "bare:4,memory:1",
}


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def twin_app(folder):
    return f'kind = "module"; module = "{MODULE}"; directory = "{folder}"; environment = {{ TWIN_FOLDER = "{folder}"; }};'


#
# The client
#


def content(key, n):
    """As in twin/content.h."""
    data, mask = b"", 2**64 - 1
    for index in range(n // 8 + 1):
        x = ((index + 1) * 0x9E3779B97F4A7C15 + key * 0xC2B2AE3D27D4EB4F) & mask
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 & mask
        data += struct.pack("=Q", x ^ x >> 32)
    return data[:n]


class FalseServer:
    """Answers requests for memory; the one of that number in its own way. @fault: a function of the id, the size and the right
    answer, which returns what is sent instead; None: closes, 0: resets, 1: says nothing."""

    def __init__(self, fault, number=7):
        self.fault, self.number = fault, number
        self.sock = tcp()
        self.port = self.sock.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        n = 0
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.sock.accept()
                with connection, connection.makefile("rb") as file, contextlib.suppress(OSError):
                    while line := file.readline():
                        fields = list(iter(file.readline, b"\r\n"))
                        n += 1
                        closes = b"Connection: close\r\n" in fields or b"HTTP/1.0" in line
                        if not self.answer(connection, line.decode(), n == self.number, closes):
                            break

    def answer(self, connection, line, is_false, closes):
        ident, size = re.search(r"id=(\w+)&n=(\d+)", line).groups()
        head = f"HTTP/1.1 200 OK\r\nX-Id: {ident}\r\nContent-Length: {size}\r\n"
        data = (head + ("Connection: close\r\n" if closes else "") + "\r\n").encode() + content(int(ident, 16), int(size))
        if is_false:
            data = self.fault(ident, int(size), data)
        if data == 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if data == 1:
            connection.recv(1)
        if data in (None, 0, 1):
            return False
        connection.sendall(data)
        return not closes

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.sock.shutdown(socket.SHUT_RD)
        self.thread.join()
        self.sock.close()


FAULTS = {
    "right": (lambda ident, n, data: data, None),
    "nothing": (lambda ident, n, data: None, "closed"),
    "reset": (lambda ident, n, data: 0, "reset"),
    "silence": (lambda ident, n, data: 1, "hang"),
    "status": (lambda ident, n, data: data.replace(b"200", b"500"), "status"),
    "size": (lambda ident, n, data: data.replace(b"Content-Length: ", b"Content-Length: 1"), "header"),
    "other": (lambda ident, n, data: data.replace(ident.encode(), b"%016x" % 7), "order"),
    "byte": (lambda ident, n, data: data[:-1] + bytes([data[-1] ^ 1]) if n else data[1:], "body header"),
    "missing": (lambda ident, n, data: data[:-2] + data[-1:], "body header hang"),
    "twice": (lambda ident, n, data: data + data, "extra order"),
    "more": (lambda ident, n, data: data + b"x", "extra header"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_client_notices(fault):
    """One wrong answer among others. Behind a byte that is missing, the next answer is out of place, or nothing comes."""
    answer, kinds = FAULTS[fault]
    with FalseServer(answer) as server:
        # This client's 7th answer is not the last one of its connection, behind which nobody listens.
        options = {"seed": 8, "threads": 1, "connections": 1, "mix": "memory:1", "style": "keep", "answers": 50}
        with TwinClient(server.port, hang=1000 if "hang" in (kinds or "") else None, **options) as client:
            report = client.wait()
    failed = {kind for kind, n in report.failed.items() if n and kind not in ("stall", "no-end")}
    assert failed <= set((kinds or "").split()) and bool(failed) == bool(kinds), str(report)


def test_client_notices_a_flipped_bit(folder):
    """In whatever is read; seven of eight bits are those of bodies."""
    with static_worker(folder) as w, TwinClient(w.address[1], static=True, mix="file:1", corrupt=20, answers=500) as client:
        report = client.wait()
    assert report.failed["body"] > 10
    assert {kind for kind, n in report.failed.items() if n} <= {"body", "header", "status"}


def test_client_notices_deaths(start, folder):
    """Of workers without a twin."""
    m = start(f'workers: {{ count = 2; twin = false; soak = "20ms"; start_timeout = "1min"; }};', app=twin_app(folder))
    m.wait_ready()
    with TwinClient(m.socket_list[0][1].getsockname()[1], folder) as client:
        for _ in range(5):
            m.wait_until(lambda: m.get("/pid").status == 200, "an answer")
            kill_child(m.pid, m.worker_processes()[0].pid)
    assert client.report.failures > 0


def test_nothing_fails_without_deaths(folder):
    with module_worker(folder) as w, TwinClient(w.address[1], folder, answers=3000) as client:
        client.wait()
    client.check(3000)
    assert client.report.ended == client.report.closes == client.report.unknown == client.report.unprocessed == 0


#
# Deaths at random times
#


def no_closes(report):
    """Deaths end no connection, but where it is not known what became of a request, or a stream cannot go on."""
    assert report.ended == 0
    assert report.closes <= report.unknown
    return report


@pytest.mark.parametrize("who", ["worker", "twin", "both", "any"])
def test_module(folder, who):
    """The worker, the twin, both at once, in turns."""
    with module_worker(folder) as w:
        with killed(worker_slots(w), TwinClient(w.address[1], folder), who=who) as killer:
            killer.wait_kills(3 * TAKEOVERS) if who == "twin" else killer.wait_takeovers(TAKEOVERS)
            n = killer.slots()[0].requests
            killer.wait_until(lambda: killer.slots()[0].requests >= n + 300, "300 requests more")
    assert w.wait_exit() is not None


@pytest.mark.parametrize("mix", [mix for mix in MIXES if mix != "any"])
def test_kinds_of_requests(folder, mix):
    with module_worker(folder) as w, killed(worker_slots(w), TwinClient(w.address[1], folder, mix=MIXES[mix])) as killer:
        killer.wait_takeovers(TAKEOVERS)


@pytest.mark.parametrize("style", ["keep", "once", "pipeline"])
def test_styles(folder, style):
    with module_worker(folder) as w, killed(worker_slots(w), TwinClient(w.address[1], folder, style=style)) as killer:
        killer.wait_takeovers(TAKEOVERS)


def test_static(folder):
    with static_worker(folder) as w, killed(worker_slots(w), TwinClient(w.address[1], static=True), who="any") as killer:
        killer.wait_takeovers(TAKEOVERS)


def test_crashes(folder):
    """By signals that a handler of the worker has the last word of."""
    signals = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS]
    with module_worker(folder) as w, killed(worker_slots(w), TwinClient(w.address[1], folder), signals=signals) as killer:
        killer.wait_takeovers(TAKEOVERS)


def test_many_idle_connections(folder):
    """Which nobody touches at the take-over, and which are served afterwards."""
    with module_worker(folder) as w, killed(worker_slots(w), TwinClient(w.address[1], folder, threads=8, connections=60)) as killer:
        killer.wait_takeovers(TAKEOVERS)


def test_unix_socket(folder, tmp_path):
    """Where a connection that is being read from or written to is lost at a death; but nothing is wrong or done twice."""
    with module_worker(folder, unix_path=tmp_path / "socket") as w:
        with killed(worker_slots(w), TwinClient(tmp_path / "socket", folder, weak=True)) as killer:
            killer.wait_takeovers(TAKEOVERS)
    # of those that are open at a death, most are not in a call


def test_master(ready, folder):
    """Four workers that hand connections over to each other."""
    m = ready('workers: { count = 4; soak = "20ms"; start_timeout = "1min"; };', app=twin_app(folder))
    with killed(master_slots(m), TwinClient(m.socket_list[0][1].getsockname()[1], folder), who="any", rate=40) as killer:
        killer.wait_takeovers(3 * TAKEOVERS)


@pytest.mark.skipif(not SECONDS, reason="MUSTER_TWIN_SECONDS is not set")
@pytest.mark.parametrize("rate", [10, 50])
def test_long(folder, rate):
    with module_worker(folder) as w:
        client = TwinClient(w.address[1], folder, seconds=SECONDS // 2, seed=SEED + rate)
        with killed(worker_slots(w), client, who="any", rate=rate) as killer:
            client.wait(SECONDS + PATIENCE)
            print(f"{killer.takeovers()} take-overs")


# A loopback that drops what comes too fast, in a namespace of its own. Packets as large as loopback's own would never pass.
SHAPER = "ip link set lo mtu 1500 up && tc qdisc add dev lo root tbf rate 40mbit burst 5k limit 20k && "
LOSS = os.environ.get("MUSTER_TWIN_LOSS")


def in_namespace(script, *args, **kwargs):
    return subprocess.run(["unshare", "-rn", "sh", "-c", script, "sh", *args], **kwargs)


def test_under_loss():
    if in_namespace(SHAPER + "true", capture_output=True).returncode != 0:
        pytest.skip("there is no namespace, or no shaper (tbf) to be had")
    args = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "test_with_loss", __file__]
    run = in_namespace(SHAPER + 'exec "$@"', *args, capture_output=True, text=True, env=os.environ | {"MUSTER_TWIN_LOSS": "1"})
    print(run.stdout)
    assert run.returncode == 0


@pytest.mark.skipif(not LOSS, reason="nothing is lost here: test_under_loss() sees to it")
def test_with_loss(folder):
    with module_worker(folder) as w:
        client = TwinClient(w.address[1], folder, seconds=SECONDS // 2 or None)
        with killed(worker_slots(w), client, who="any", rate=30) as killer:
            killer.wait_takeovers(2 * TAKEOVERS)
            if SECONDS:
                client.wait(SECONDS + PATIENCE)
    dropped = subprocess.run(["tc", "-s", "qdisc", "show", "dev", "lo"], check=True, capture_output=True, text=True).stdout
    print(dropped)
    assert int(re.search(r"dropped (\d+)", dropped)[1]) > 0


#
# One death
#


def serving(w):
    return worker_slots(w)()[0]


def text(client, target, **kwargs):
    answer = client.request(target, **kwargs)
    assert answer.status == 200, answer.body
    return answer.body.decode()


def wait_twin(w):
    """Until there is one to take over."""
    w.wait_until(lambda: serving(w).twin > 0)


def die(w, signo=signal.SIGKILL):
    """The serving process does, and another serves."""
    wait_twin(w)
    n = serving(w).takeovers
    assert kill_child(w.pid, serving(w).worker, signo)
    w.wait_until(lambda: serving(w).takeovers > n)


def test_another_process_serves_the_connection(folder):
    with module_worker(folder) as w, connected(w) as client:
        before = [text(client, "/pid"), text(client, "/served")]
        assert before == [str(serving(w).worker), "2"]
        die(w)
        assert text(client, "/pid") == str(serving(w).worker) != before[0]
        assert text(client, "/served") == "2"  # of its own: its memory is new


@pytest.mark.parametrize("times", [1, 2])
def test_request_that_crashes_is_answered(folder, times):
    with module_worker(folder) as w, connected(w) as client, connected(w) as other:
        assert text(other, "/served") == "1"
        assert text(client, f"/segv-times?times={times}&id={times}") == str(times)
        assert text(other, "/pid") == text(client, "/pid")
        assert serving(w).takeovers == times
        pid, status, reason = serving(w).death(0)
        assert os.WTERMSIG(status) == signal.SIGSEGV and "/segv-times" in reason


def test_poison(folder):
    """A request that killed three in a row is not tried again. Others of the client are served."""
    with module_worker(folder) as w, connected(w) as client, connected(w) as other, connected(w) as third:
        assert text(other, "/served") == "1"
        send_request(third, "/m?id=1&n=10&usec=300000")
        send_request(client, "/segv?who=poison")
        assert client.answer().status == 500
        assert serving(w).takeovers == 3
        assert text(other, "/pid") == str(serving(w).worker)
        assert third.answer().status == 200
        assert re.search(r"/segv\?who=poison", w.stderr())
        assert serving(w).takeovers == 3


def test_poison_in_a_pipeline(folder):
    """What comes behind it is answered, too, or the connection ends in order behind the 500."""
    with module_worker(folder) as w, connected(w) as client:
        send_request(client, "/pid")
        send_request(client, "/segv")
        send_request(client, "/pid")
        assert [client.answer().status, (poison := client.answer()).status] == [200, 500]
        if poison.closes:
            assert client.at_end()
        else:
            assert client.answer().status == 200


def test_unkeyed_request_that_crashes(folder):
    """It is not tried again, and its client is told that nobody knows."""
    with module_worker(folder) as w, connected(w) as client:
        answer = client.request("/segv", method="POST", headers=["Content-Length: 0"])
        assert answer.status == 503 and answer.closes and client.at_end()
        assert serving(w).takeovers == 1
        assert "nobody knows what became of the request POST /segv, which is answered 503" in w.stderr()


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("how", ["crash", "fail"])
def test_start_fails(folder, how, times):
    """That of the twin: another one takes over."""
    with module_worker(folder) as w, connected(w) as client:
        text(client, "/pid")
        (folder / f"{how}-in-start").write_text(str(times))
        die(w)
        assert text(client, "/pid") == str(serving(w).worker)
        die(w)
        assert text(client, "/pid") == str(serving(w).worker)


def test_crash_in_the_start_is_no_fault_of_a_request(folder):
    """One that waits for its answer: three that it is blamed for would make a 500."""
    with module_worker(folder) as w, connected(w) as client, connected(w) as other:
        send_request(client, "/m?id=1&n=10&usec=300000")
        n = 1
        while int(text(other, "/served")) == n:  # until it waits
            n += 1
        (folder / "crash-in-start").write_text("3")
        die(w)
        assert client.answer().status == 200


def test_descriptor_above_the_limit(folder):
    """The app has raised the limit: what it opened beyond the former one is closed all the same."""
    options = {"environment": {"TWIN_LOCK": "1", "TWIN_HIGH": "2000"}, "wrapper": wrapper("nofile", 1024, 4096)}
    with module_worker(folder, "--max-connections=100", **options) as w, connected(w) as client:
        for _ in range(2):
            assert text(client, "/lock") == "locked"
            die(w)
        assert text(client, "/lock") == "locked"
        assert [n for n in w.fds() if int(n) >= 1024] == ["2000"]


def test_files_up_to_the_limit(tmp_path):
    """Each connection sends a file of its own, and there are no more descriptors than that takes."""
    n, size = 60, 4 * 1024 * 1024
    for i in range(n):
        (tmp_path / str(i)).write_bytes(bytes([i]) * size)
    with static_worker(tmp_path, wrapper=wrapper("nofile", 200, 200)) as w, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(w, rcvbuf=4096)) for _ in range(n)]
        for i, client in enumerate(clients):
            send_request(client, f"/{i}")
        for client in clients:
            client.fill()
        for _ in range(2):
            die(w)
        for i, client in enumerate(clients):
            assert client.answer().body == bytes([i]) * size


def test_full_worker(folder):
    """The one that takes over has no more room than the one before."""
    with module_worker(folder, "--max-connections=3") as w, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(w)) for _ in range(12)]
        for _ in range(3):
            for client in clients[:3]:
                text(client, "/pid")
            assert w.connections == 3
            die(w)
        for client in clients[:3]:
            text(client, "/pid")
        assert w.connections == 3


def test_crash_in_every_start(folder):
    """It gives up in the end, in the way of the last death."""
    with module_worker(folder) as w:
        wait_twin(w)
        (folder / "crash-in-start").write_text("1000")
        assert kill_child(w.pid, serving(w).worker)
        assert w.wait_exit() == -signal.SIGSEGV


def test_master_starts_what_gave_up(ready, folder):
    m = ready('workers: { count = 2; soak = "20ms"; start_timeout = "1min"; };', app=twin_app(folder))
    slots = master_slots(m)
    keepers = {w.pid for w in m.worker_processes()}
    (folder / "crash-in-start").write_text("7")
    slot = slots()[0]
    m.wait_until(lambda: slot.twin > 0, "a twin")
    kill_child(slot.keeper, slot.worker)
    m.wait_until(lambda: len(keepers - {w.pid for w in m.worker_processes()}) == 1, "it has given up")
    m.wait_until(lambda: len(slots()) == 2, "the slot is filled again")
    assert m.get("/pid").status == 200


def test_thread_of_the_pool(folder):
    """One that never ends dies with its process."""
    with module_worker(folder) as w, connected(w) as client:
        pid = text(client, "/thread")
        die(w)
        assert text(client, "/pid") == str(serving(w).worker) != pid


def test_crash_in_a_thread(folder):
    with module_worker(folder) as w, connected(w) as client:
        assert text(client, "/thread-segv") == "begun"
        w.wait_until(lambda: serving(w).takeovers == 1)
        assert text(client, "/pid") == str(serving(w).worker)


def test_children_of_the_dead(folder):
    """They are gone when another process serves."""
    with module_worker(folder) as w, connected(w) as client:
        child = os.pidfd_open(int(text(client, "/fork")))
        try:
            die(w)
            text(client, "/pid")
            assert select.select([child], [], [], DEADLINE)[0]
        finally:
            os.close(child)


def test_lock(folder):
    """The one of a process that died does not keep its successor from having it, and others not."""
    with module_worker(folder, environment={"TWIN_LOCK": "1"}) as w, connected(w) as client:
        for _ in range(3):
            assert text(client, "/lock") == "locked"
            with open(folder / "lock", "r+") as file, pytest.raises(BlockingIOError):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            die(w)
        assert text(client, "/lock") == "locked"


def test_descriptors_do_not_grow(folder):
    """What the dead had open is closed."""
    with module_worker(folder) as w:
        with TwinClient(w.address[1], folder, answers=300) as client:
            client.wait()
        die(w)
        wait_twin(w)
        w.wait_until(lambda: w.connections == 0)
        before = len(w.fds())
        for _ in range(5):
            with connected(w) as client:
                assert client.request("/m?id=1&n=10").status == 200
                send_request(client, "/f/10485760?id=1")
                client.fill()
                die(w)
        wait_twin(w)
        w.wait_until(lambda: w.connections == 0)
        assert len(w.fds()) <= before + 1


#
# The end
#


@pytest.mark.parametrize("delay", range(6))
def test_retire_at_a_take_over(folder, delay):
    """Whoever serves then, drains, and the keeper ends."""
    with module_worker(folder) as w, connected(w) as client:
        text(client, "/pid")
        wait_twin(w)
        kill_child(w.pid, serving(w).worker)
        select.select([w.pidfd], [], [], delay * 0.002)
        w.kill(signal.SIGTERM)
        assert w.wait_exit() in (0, -signal.SIGKILL)


def test_retire_under_kills(folder):
    """It ends, and nothing is doubled or wrong."""
    with module_worker(folder) as w, TwinClient(w.address[1], folder, hang=2000) as client, Killer(worker_slots(w)) as killer:
        killer.wait_takeovers(3)
        w.kill(signal.SIGTERM)
        assert w.wait_exit() in (0, -signal.SIGKILL)
        killer.stop()
        client.process.terminate()
        report = client.stop()
        assert report.effects["twice"] == report.failed["body"] == report.failed["order"] == report.failed["extra"] == 0, str(report)


def test_death_of_the_keeper(folder):
    """The others die with it."""
    with module_worker(folder) as w:
        wait_twin(w)
        fds = [os.pidfd_open(serving(w).worker), os.pidfd_open(serving(w).twin)]
        w.kill(signal.SIGKILL)
        assert w.wait_exit() == -signal.SIGKILL
        for fd in fds:
            assert select.select([fd], [], [], DEADLINE)[0]
            os.close(fd)


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGHUP], ids=["stop", "reload"])
def test_master_under_kills(ready, folder, signo):
    """It ends, or has a new generation, whatever dies meanwhile; and nobody is left over."""
    m = ready('workers: { count = 4; soak = "20ms"; start_timeout = "1min"; };', app=twin_app(folder))
    slots = master_slots(m)
    pids = [pid for slot in slots() for pid in (slot.worker, slot.twin) if pid > 0]
    fds = [os.pidfd_open(pid) for pid in pids if parent_is_there(pid)]
    with Killer(slots, who="any", rate=40) as killer:
        killer.wait_kills(10)
        m.kill(signo)
        if signo == signal.SIGHUP:
            m.wait_message("RELOADING=1")
            m.wait_ready()
            assert m.get("/pid").status == 200
        else:
            assert m.wait_exit() == 0
    for fd in fds:
        assert select.select([fd], [], [], DEADLINE)[0]
        os.close(fd)


def parent_is_there(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def test_reload_loses_nothing(ready, folder):
    """Between deaths."""
    m = ready('workers: { count = 2; soak = "20ms"; start_timeout = "1min"; };', app=twin_app(folder))
    slots = master_slots(m)
    with TwinClient(m.socket_list[0][1].getsockname()[1], folder) as client:
        for _ in range(3):
            for slot in filter(lambda slot: slot.state == READY, slots()):
                m.wait_until(lambda: slot.twin > 0, "a twin")
                n = slot.takeovers
                kill_child(slot.keeper, slot.worker)
                m.wait_until(lambda: slot.takeovers > n, "the take-over")
            m.kill(signal.SIGHUP)
            m.wait_message("RELOADING=1")
            m.wait_ready()
            m.wait_until(lambda: len(slots()) == 2, "those are gone that are told to: their deaths are not taken over")
        client.check()
