# SPDX-License-Identifier: MIT
"""Nothing is lost: under constant load, whatever happens to the workers, not one request fails. And the client that says
so would have noticed."""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import threading
import time

import pytest
from harness import Master, tcp, unix, wait_readable
from lifecycle import Lifecycle, assert_always, connected, tell
from load import Load, address_of
from worker_harness import DEADLINE

TIMES = 100
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"
LAST_ANSWER = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

# A plain reload takes no longer than its workers.
FAST = "soak = \"0\";"


def workers(settings, count=2):
    return f'workers: {{ count = {count}; start_timeout = "1min"; {settings} }};'


@contextlib.contextmanager
def constant_load(m, **options):
    """On every socket of it: kept connections, and some that are new for each request. None of the requests fails, however late
    it is answered on a slow machine; what is lost is not answered at all."""
    options = {"connections": 8, "fresh": 2, "limit": 15, **options}
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Load(address_of(sock), **options)) for _, sock in m.socket_list]
        yield lambda n: [client.wait(n) for client in clients]
        for client in clients:
            client.check()


#
# The client
#


@contextlib.contextmanager
def server(*turns, listener=None):
    """One connection after the other is served by the next of @turns, a function of the connection; more are right."""
    with listener or tcp() as sock:

        def serve():
            left = list(turns)
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = sock.accept()
                    with connection:
                        (left.pop(0) if left else right)(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock
        finally:
            sock.shutdown(socket.SHUT_RD)
            thread.join()


def asked(connection):
    """Whether a request has come."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = connection.recv(4096)
        if not more:
            return False
        data += more
    return True


def right(connection):
    with contextlib.suppress(OSError):
        while asked(connection):
            connection.sendall(ANSWER)


def answers(*texts):
    """One after the other, and then the end."""

    def turn(connection):
        for text in texts:
            asked(connection)
            connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    return turn


def closes_when_asked(connection):
    asked(connection)
    connection.sendall(ANSWER)
    asked(connection)


def resets(connection):
    asked(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def never_answers(connection):
    asked(connection)
    connection.recv(4096)


def one_failed(account, kind):
    return account.answered > 0 and {k: n for k, n in account.failed.items() if n} == {kind: 1} and account.first[0]["failure"] == kind


@pytest.mark.parametrize(
    "turn, kind",
    [
        (answers(), "closed"),
        (closes_when_asked, "closed"),
        (resets, "reset"),
        (answers(ANSWER[:20]), "reset"),
        (answers(ANSWER[:-1]), "reset"),
        (answers(ANSWER.replace(b"6", b"5")[:-1]), "short"),
        (answers(ANSWER.replace(b"hello", b"hallo")), "short"),
        (answers(ANSWER + b"\n"), "short"),
        (answers(ANSWER.replace(b"Length", b"Width")), "short"),
        (answers(b"hello\n" + ANSWER), "short"),
        (answers(ANSWER.replace(b"200", b"503")), "status"),
        (never_answers, "late"),
    ],
    ids=["nothing", "race", "reset", "head", "body", "length", "content", "more", "no-length", "no-head", "status", "late"],
)
def test_client_sees(turn, kind):
    """Each way in which a request fails is counted once, by its name; the next request is a new one."""
    limit = 3 if kind == "late" else DEADLINE
    with server(turn) as sock, Load(address_of(sock), connections=1, limit=limit) as client:
        client.wait(3)
        assert one_failed(client.stop(), kind), str(client.account)
        with pytest.raises(AssertionError):
            client.check()


def test_client_sees_refusal(tmp_path):
    """A port where nobody listens, a unix socket that is not there, and one that nobody holds."""
    with unix(tmp_path / "left"):
        pass
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # and is kept, or somebody else may listen there
        for address in (address_of(sock), tmp_path / "none", tmp_path / "left"):
            with Load(address, connections=1) as client:
                while not client.count().failures:
                    pass
                assert client.stop().failed["refused"] == client.account.failures


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_client_sees_a_full_queue(family, tmp_path):
    """What cannot even connect has failed as well; and if it can at last, in time, it has not."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(tcp() if family == "tcp" else unix(tmp_path / "full"))
        sock.listen(0)
        waiting = []
        for _ in range(4):  # one is enough, but the kernel is not precise
            waiting.append(stack.enter_context(socket.socket(sock.family)))
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(sock.getsockname())
        with Load(address_of(sock), connections=1, limit=0.2) as client:
            while not client.count().failures:
                pass
            assert client.stop().failed["connect-timeout"] == client.account.failures > 0
        with Load(address_of(sock), connections=1, limit=DEADLINE) as client:
            for each in waiting:
                each.close()
            with server(listener=sock.dup()):
                client.wait(3)
                client.check()


@pytest.mark.parametrize("text, count", [(ANSWER, "clean"), (LAST_ANSWER, "announced")])
def test_client_forgives(text, count):
    """What ends between two requests, without one under way, is no failure."""
    known = threading.Event()

    def turn(connection):
        """The client, which is stopped meanwhile, sees the answer and the end at the same time."""
        asked(connection)
        known.wait()
        client.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, client.process.pid, os.WSTOPPED)
        connection.sendall(text)
        connection.close()
        client.process.send_signal(signal.SIGCONT)

    with server(turn, turn) as sock, Load(address_of(sock), connections=1, rate=20) as client:
        known.set()
        client.wait(4)
        account = client.check()
        assert account.connected == 3
        assert getattr(account, count) == 2


#
# The service
#


def processes(m):
    """Its workers by their pids. To wait for the end of one is to read meanwhile what the master says, as systemd would: there is
    no room in the socket for more than a few messages, and sd_notify(3) waits for it."""
    found = {worker.pid: worker for worker in m.worker_processes()}
    for worker in found.values():
        worker.master = m
    return found


def reload(m):
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    return m.wait_ready()


def test_good_reloads(ready, tmp_path):
    """Every one brings a new generation, which serves before the old one goes."""
    m = ready(workers(FAST), sockets=[("http", tcp()), ("local", unix(tmp_path / "sock"))])
    with constant_load(m) as progress:
        for generation in range(2, 2 + TIMES):
            assert reload(m).endswith(f" connections, generation {generation}")
            progress(100)
        # by and by, and not because their time is over
        m.wait_until(lambda: len(m.children()) == 2, "the end of the old workers")
    assert m.whoami()["generation"] == 1 + TIMES


def test_bad_reloads(ready):
    """By turns one that is refused, and one whose worker cannot start: the old generation has not missed a request."""
    m = ready(workers(FAST))
    before = processes(m)
    with constant_load(m) as progress:
        for i in range(TIMES):
            if i % 2:
                m.write_config(workers(FAST), directory="/nonexistent")
            else:
                m.config_file.write_text("nonsense")
            assert "generation 1; reload failed: " in reload(m)
            progress(100)
        m.wait_until(lambda: len(m.children()) == 2, "the end of the new workers")
    assert m.whoami()["pid"] in before
    assert not any(w.ended() for w in before.values())


def test_good_and_bad_reloads(ready):
    """Not all workers of a generation that fails fail at once, and the next one is good."""
    m = ready(
        workers(FAST, count=3),
        worker="if GENERATION % 2 == 0 and SLOT == 2:\n    sys.exit(9)\nreal(REAL)\n",
    )
    with constant_load(m) as progress:
        for generation in range(2, 22):
            last = reload(m)
            assert ("reload failed: worker 2" in last) == (generation % 2 == 0)
            progress(100)


@pytest.mark.parametrize("command, times", [("/suicide", TIMES), ("/retire", 20), ("/leave", 20)])
def test_suicides(ready, tmp_path, command, times):
    """A worker that asks to be replaced serves until it is, and finishes what it has. That is no death to be counted
    against it."""
    m = ready(workers(""), environment=Lifecycle(tmp_path).environment)
    since = len(m.statuses())
    with constant_load(m) as progress:
        for _ in range(times):
            before = processes(m)
            before[int(tell(m, command))].wait_end()
            progress(100)
    assert_always(m, "2/2 workers ready", since)
    assert len(m.children()) == 2


def test_all_suicides_at_once(ready, tmp_path):
    """All workers ask at the same time, again and again."""
    m = ready(workers("", count=4), environment=Lifecycle(tmp_path).environment)
    since = len(m.statuses())
    with constant_load(m) as progress:
        for _ in range(20):
            before = processes(m)
            for pid in before:
                with connected(m, pid) as client:
                    assert client.request("/suicide").status == 200
            for worker in before.values():
                worker.wait_end()
            progress(100)
    assert_always(m, "4/4 workers ready", since)


@pytest.mark.parametrize("rate, max_requests", [(5000, 500), (None, 2000)])
def test_max_requests(ready, rate, max_requests):
    """A worker that has answered its share is replaced, at the pace of its clients."""
    m = ready(workers(f"max_requests = {max_requests};"))
    since = len(m.statuses())
    seen, end = set(), time.monotonic() + 6 * DEADLINE
    with constant_load(m, rate=rate):
        while len(seen) < 2 + TIMES:
            seen.add(m.whoami()["pid"])
            assert time.monotonic() < end, f"{len(seen)} workers in {6 * DEADLINE} s"
    assert_always(m, "2/2 workers ready", since)


def test_stop_and_start(start):
    """The socket is systemd's: what comes while there is no service waits for the next one."""
    with tcp() as sock:
        first = start(sockets=[("http", sock.dup())])
        with constant_load(first) as progress:
            m = first
            for _ in range(TIMES):
                m.wait_ready()
                progress(100)
                m.kill()
                assert m.wait_exit() == 0
                m = start(sockets=[("http", sock.dup())])
            m.wait_ready()
            progress(100)


IDLE_EXIT_MSEC = 20


def connect_at(m, moment):
    """When it has said that it goes, or so many milliseconds after it would; at its end at the latest."""
    if moment == "stopping":
        m.wait_message("STOPPING=1")
    else:
        select.select([m.pidfd], [], [], max(0, IDLE_EXIT_MSEC + moment) / 1000)
    return m.connect()


def test_idle_exit():
    """It leaves when nobody is there, with success; whoever comes in that very moment is answered, by it or by the next one."""
    settings = f'idle_exit = "{IDLE_EXIT_MSEC}ms";'
    moments = ["stopping", *(i / 4 for i in range(-8, 12))]
    request = b"GET /whoami HTTP/1.1\r\nHost: idle\r\nConnection: close\r\n\r\n"
    with tcp() as sock, contextlib.ExitStack() as stack:
        m, exits = None, 0

        def begin():
            nonlocal m
            m = stack.enter_context(contextlib.closing(Master(settings, sockets=[("http", sock.dup())], workers=1)))

        def end():
            nonlocal exits
            assert m.wait_exit() == 0, m.stderr()
            exits += 1
            stack.pop_all().close()

        begin()
        for i in range(3 * TIMES):
            m.wait_ready()
            with contextlib.closing(connect_at(m, moments[i % len(moments)])) as client:
                client.send(request)
                while client.sock not in wait_readable([client.sock, m.pidfd], "an answer, or the end"):
                    end()
                    begin()
                answer = client.answer()
                assert answer.status == 200 and json.loads(answer.body)["generation"] == 1
            wait_readable([m.pidfd], "the end of a service without clients")
            end()
            begin()
        m.wait_ready()
        assert exits >= 3 * TIMES
