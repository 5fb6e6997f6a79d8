# SPDX-License-Identifier: MIT
"""Native workers share the connections of a socket fairly, and one that is stopped or busy is not waited for.

Each promise alone is kept by ways to do it that break the others. The machine on which this runs may stand still itself, so a
watch runs beside what is measured: what came out while that was late is measured once more.
"""

import contextlib
import ctypes
import os
import pathlib
import resource
import select
import signal
import socket
import struct
import threading
import time

import pytest

from worker_harness import BUILD_DIR, CELL_SIZE, DEADLINE, Client

N = 1000
WORKERS = 4
PATIENCE = 0.1  # seconds; what is promised, of which the workers take a fifth
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CONNECTION = b"\1\2\0\0\0\0\0\0"  # a message of that kind, worker/inbox.c
PIDFD_GETFD = 438


class Watch:
    """Wakes up every few milliseconds, in a thread, and sees how late."""

    def __enter__(self):
        self.late = 0
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def run(self):
        before = time.monotonic()
        while not self.end.wait(0.002):
            now = time.monotonic()
            self.late = max(self.late, now - before - 0.002)
            before = now

    def __exit__(self, *exc):
        self.end.set()
        self.thread.join()


def undisturbed(measure, limit=0.01):
    """What @measure says of a time in which the machine ran; of the last time, if it never does."""
    for _ in range(5):
        with Watch() as watch:
            result = measure()
        if result is None:
            return
        if watch.late < limit:
            break
    raise AssertionError(f"{result} (the machine was {watch.late * 1000:.0f} ms late)")


def connect_slowly(m, n=N):
    clients = []
    for _ in range(n):
        clients.append(m.connect())
        clients[-1].request()
    return clients


def connect_at_once(m, n=N):
    address = m.socket_list[0][1].getsockname()
    socks = [socket.socket() for _ in range(n)]
    for sock in socks:
        sock.setblocking(False)
        sock.connect_ex(address)
    poll = select.poll()
    fds = {sock.fileno(): sock for sock in socks}
    for fd in fds:
        poll.register(fd, select.POLLOUT)
    while fds:
        ready = poll.poll(DEADLINE * 1000)
        assert ready, "a connection was not taken"
        for fd, _ in ready:
            poll.unregister(fd)
            fds.pop(fd).send(REQUEST)
    for sock in socks:
        sock.settimeout(DEADLINE)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    return socks


def by_slot(m, board):
    """Slot to open connections, of the workers that live."""
    found = {}
    for worker in m.worker_processes():
        with contextlib.suppress(OSError):
            env = worker.environment()
            (n,) = struct.unpack_from("=I", board, int(env["MUSTER_BOARD_CELL"]) * CELL_SIZE + 4)
            found[int(env["MUSTER_WORKER"])] = n
    return found


@pytest.mark.parametrize("connect", [connect_slowly, connect_at_once])
def test_fair_shares(ready, connect):
    """Each of four workers has 225 to 275 of 1000 connections, in every run."""
    m = ready(workers=WORKERS)

    def measure():
        with contextlib.closing(m.board()) as board:
            clients = connect(m)
            try:
                m.wait_connections(N)
                shares = sorted(by_slot(m, board).values())
                print(connect.__name__, shares)
                return None if len(shares) == WORKERS and 225 <= shares[0] and shares[-1] <= 275 else shares
            finally:
                for client in clients:
                    client.close()
                m.wait_connections(0)

    for _ in range(3):
        undisturbed(measure)


def worker_of(m, slot):
    """Its process."""
    (found,) = (w for w in m.worker_processes() if w.environment()["MUSTER_WORKER"] == str(slot))
    return found


def stop(m, worker):
    """Returns the process that serves for it, which is to be told to go on."""
    serving = m.serving(worker)
    serving.kill(signal.SIGSTOP)
    stat = pathlib.Path(f"/proc/{serving.pid}/stat")
    m.wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", "the stop")
    return serving


@contextlib.contextmanager
def stopped(m):
    """One worker stands still."""
    serving = stop(m, worker_of(m, 2))
    try:
        yield
    finally:
        serving.kill(signal.SIGCONT)


@contextlib.contextmanager
def busy(m):
    """One worker is in a handler that takes a second."""
    client = m.connect()
    client.send(b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.closing(m.board()) as board:
        m.wait_until(lambda: sum(by_slot(m, board).values()) > 0, "the busy connection")
    yield
    assert client.answer().status == 200
    client.close()


def arrive(m, n=200, every=0.003):
    """Connections, one after the other, that stay open. Returns the seconds from connect to answer of each."""
    address = m.socket_list[0][1].getsockname()
    poll, waiting, clients, took = select.poll(), {}, [], []
    begin = time.monotonic()
    while len(took) < n:
        rest = begin + len(clients) * every - time.monotonic()
        if len(clients) < n and rest <= 0:
            sock = socket.socket()
            sock.settimeout(DEADLINE)
            at = time.monotonic()
            sock.connect(address)
            sock.sendall(REQUEST)
            clients.append(sock)
            waiting[sock.fileno()] = (sock, at)
            poll.register(sock, select.POLLIN)
            continue
        assert time.monotonic() < begin + DEADLINE, f"{n - len(took)} were not answered"
        for fd, _ in poll.poll(max(rest, 0) * 1000 if len(clients) < n else DEADLINE * 1000):
            sock, at = waiting.pop(fd)
            poll.unregister(fd)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            took.append(time.monotonic() - at)
    for sock in clients:
        sock.close()
    return sorted(took)


@pytest.mark.parametrize("trouble", [stopped, busy])
def test_nobody_waits_for_one(ready, trouble):
    """While one worker stands still nobody waits 100 ms for it, and no connection is lost. It has the fewest connections soon,
    which must not be what it is chosen for."""
    m = ready(workers=WORKERS, app=f'kind = "module"; module = "{BUILD_DIR.resolve()}/tests/integration/modules/busy.so";')

    def measure():
        m.wait_connections(0)
        with trouble(m):
            took = arrive(m)
        print(trouble.__name__, [round(t * 1000, 1) for t in (took[100], took[-3], took[-1])])
        return None if took[-1] < PATIENCE else f"{took[-1] * 1000:.0f} ms"

    undisturbed(measure, limit=PATIENCE / 4)


@contextlib.contextmanager
def inbox_of(m, slot):
    """The end to send to of the slot's inbox, as a worker has it."""
    holder = worker_of(m, 1)
    first = int(holder.environment()["MUSTER_INBOX_FDS"].split(":")[0])
    fd = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, holder.pidfd, first + 2 * slot - 1, 0)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    with socket.socket(fileno=fd) as sock:
        assert sock.type == socket.SOCK_SEQPACKET
        yield sock


def hand_over(inbox):
    """What a worker does that dies then: nobody looks after it. Returns the client."""
    theirs, ours = socket.socketpair()
    socket.send_fds(inbox, [CONNECTION], [theirs.fileno()])
    theirs.close()
    return Client(ours)


def beats_of(worker, board):
    """Each turn of its loop is one, and each connection that is dealt with."""
    (n,) = struct.unpack_from("=Q", board, int(worker.environment()["MUSTER_BOARD_CELL"]) * CELL_SIZE + 24)
    return n


def assert_calm(worker, board, client, seconds):
    """While the client asks and asks, the worker makes no more turns than that takes: none for which nothing has come."""
    before, n = beats_of(worker, board), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or n < 100:
        assert client.request().status == 200
        n += 1
    assert beats_of(worker, board) - before < 3 * n + 20


def test_sender_closes_late(ready):
    """Who hands a connection over may have it open for longer than who serves it: the client hears of
    the end all the same, and nothing that comes there is heard of any more."""
    m = ready(workers=2)
    worker = worker_of(m, 2)
    theirs, ours = socket.socketpair()
    client = Client(ours)
    with inbox_of(m, 2) as inbox, theirs, m.board() as board:
        socket.send_fds(inbox, [CONNECTION], [theirs.fileno()])
        assert client.request().status == 200
        assert client.request(headers=["Connection: close"]).status == 200
        m.wait_until(lambda: by_slot(m, board)[2] == 0, "the end of the connection")
        assert client.at_end()
        other = hand_over(inbox)
        assert_calm(worker, board, other, seconds=0.1)
        assert worker_of(m, 2).pid == worker.pid
        other.close()
    client.close()


def test_owner_dies(ready):
    """What lies in the inbox of a worker that was killed is served by the next one of the slot."""
    m = ready(workers=2)
    worker = worker_of(m, 2)
    stop(m, worker)
    with inbox_of(m, 2) as inbox:
        clients = [hand_over(inbox) for _ in range(5)]
    worker.kill(signal.SIGKILL)
    for client in clients:
        assert client.request().status == 200
        client.close()
    assert worker_of(m, 2).pid != worker.pid


def test_owner_dies_of_those_that_come(ready):
    """The same, with connections that siblings hand over and look after."""
    m = ready(workers=WORKERS)
    clients = connect_at_once(m, 160)
    worker = worker_of(m, 2)
    stop(m, worker)
    killer = threading.Timer(0.15, worker.kill, [signal.SIGKILL])
    killer.start()
    arrive(m, n=100)
    killer.join()
    for client in clients:
        client.close()


def test_owner_retires(ready):
    """A worker that drains takes what lies in its inbox first."""
    m = ready(workers=2)
    worker = worker_of(m, 2)
    serving = stop(m, worker)
    with inbox_of(m, 2) as inbox:
        clients = [hand_over(inbox) for _ in range(5)]
    m.kill(signal.SIGTTOU)
    serving.kill(signal.SIGCONT)
    for client in clients:
        assert client.request().status == 200
        client.close()
    worker.wait_end()


def answer_times(m, n):
    took, clients = [], []
    for _ in range(n):
        at = time.monotonic()
        clients.append(m.connect())
        assert clients[-1].request().status == 200
        took.append(time.monotonic() - at)
    for client in clients:
        client.close()
    return f"{max(took) * 1000:.0f} ms" if max(took) >= PATIENCE else None


def test_no_descriptors(ready):
    """A worker that is woken up, and has no descriptor for the connection, tells one that has some."""
    m = ready(workers=2)
    worker = m.serving(worker_of(m, 1))
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    used = sorted(worker.fds())
    free = next(fd for fd in range(len(used) + 1) if fd not in used)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (free, hard))
    undisturbed(lambda: answer_times(m, 40), limit=PATIENCE / 4)
    assert "Not accepting connections for now: Too many open files" in m.stderr()
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_full_worker(ready):
    """Nobody waits while one of them has room."""
    m = ready("http: { max_connections = 10; };", workers=2)

    def measure():
        m.wait_connections(0)
        return answer_times(m, 20)

    undisturbed(measure, limit=PATIENCE / 4)
    m.wait_connections(0)
    for sock in connect_at_once(m, 20):
        sock.close()


@contextlib.contextmanager
def without_descriptors(worker):
    """It can open nothing more."""
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    fds = worker.fds().keys()
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (min(set(range(max(fds) + 2)) - fds), hard))
    try:
        yield
    finally:
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_for_what_is_handed_over(ready):
    """It goes back to whoever looks after it, and lies in the inbox if that is nobody. The worker does not turn in circles."""
    m = ready(workers=2)
    worker = m.serving(worker_of(m, 2))
    with inbox_of(m, 2) as inbox, without_descriptors(worker):
        clients = [hand_over(inbox) for _ in range(3)]
        ticks = worker.cpu_seconds()
        for client in clients:
            assert not select.select([client.sock], [], [], 0.4)[0], "it was closed"
        assert worker.cpu_seconds() - ticks < 0.1
        others = connect_at_once(m, 100)  # of which the worker cannot have its part
    for client in clients:
        assert client.request().status == 200
        client.close()
    for sock in others:
        sock.close()


def test_full_after_a_lack(ready):
    """The worker that paused for want of a descriptor, and is full by what was handed to it, waits without turning in circles."""
    m = ready("http: { max_connections = 2; };", workers=2)
    worker, one = m.serving(worker_of(m, 2)), stop(m, worker_of(m, 1))
    with inbox_of(m, 2) as inbox, m.board() as board:
        with without_descriptors(worker):
            waits = m.connect()
            m.wait_until(lambda: "Not accepting connections for now" in m.stderr(), "the lack")
        clients = [hand_over(inbox) for _ in range(2)]
        for client in clients:
            assert client.request().status == 200
        assert_calm(worker, board, clients[0], seconds=1.5)  # in which it tries again
    one.kill(signal.SIGCONT)
    for client in clients:
        client.close()
    assert waits.request().status == 200
    waits.close()


def test_mad_messages(ready):
    """What a worker gone mad sends into an inbox is thrown away, and a good message is read behind it."""
    m = ready(workers=2)
    worker = worker_of(m, 2)
    fds = worker.fds()
    read, write = os.pipe()
    theirs, ours = socket.socketpair()
    with inbox_of(m, 2) as inbox, socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for message, sent in (
            (b"", []),
            (b"\1", [theirs.fileno()]),
            (b"\2" + CONNECTION[1:], [theirs.fileno()]),
            (CONNECTION, []),
            (CONNECTION, [theirs.fileno()] * 2),
            (CONNECTION, [theirs.fileno()] * 100),
            (CONNECTION, [read]),
            (CONNECTION, [listener.fileno()]),
            (CONNECTION, [datagram.fileno()]),
        ):
            socket.send_fds(inbox, [message], sent)
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            with socket.socket(family) as unconnected:
                socket.send_fds(inbox, [CONNECTION], [unconnected.fileno()])
        hand_over(inbox).close()
        client = hand_over(inbox)
        assert client.request().status == 200
        client.close()
        theirs.close()
        assert ours.recv(1) == b"", "it was not closed"
        m.wait_connections(0)
        assert worker.fds().keys() == fds.keys()
    os.close(read)
    os.close(write)
    ours.close()


def test_shut_inbox(ready):
    """Nor does it hold anybody up that an inbox was shut down."""
    m = ready(workers=2)
    worker = worker_of(m, 2)
    with inbox_of(m, 2) as inbox:
        inbox.shutdown(socket.SHUT_RDWR)
    m.wait_until(lambda: "inbox of this worker was shut down" in m.stderr(), "the word about it")
    for client in connect_slowly(m, 50):
        client.close()
    m.wait_connections(0)
    ticks = worker.cpu_seconds()
    for client in connect_slowly(m, 10):
        client.close()
    assert worker.cpu_seconds() - ticks < 0.5
