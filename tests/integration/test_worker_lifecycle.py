# SPDX-License-Identifier: MIT
"""A native worker's signs of life, its way out, and what its clients see of that: nothing."""

import collections
import contextlib
import heapq
import os
import random
import resource
import select
import signal
import socket
import threading
import time

import pytest
from worker_harness import BINARY, DEADLINE, DISMISSED, DRAINING, LEAVING, READY, Worker

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    (root / "index.html").write_text("<title>root</title>\n")
    (root / "small.txt").write_bytes(b"s" * 1024)
    (root / "big.bin").write_bytes(os.urandom(20 * 1024 * 1024))
    return root


@contextlib.contextmanager
def started(*args, **kwargs):
    with Worker(*args, **kwargs) as w:
        yield w.wait_state(READY).wait_twin()


def rings(w):
    """How often the bell rang since it was last looked at."""
    try:
        return os.eventfd_read(w.bell)
    except BlockingIOError:
        return 0


# The beginning


def test_dismissed_before_it_begins(site):
    """A worker that the master has no use for any more takes nobody out of the queue: it may be killed without a loss."""
    with Worker(site, state=DISMISSED) as w, contextlib.closing(w.connect()) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert w.wait_exit() == 0
        assert w.cell() == (DISMISSED, 0, 0, 0)
        accepted, _ = w.listeners[0].accept()
        assert accepted.recv(3) == b"GET"
        accepted.close()


# Beats


def test_beats_with_traffic(site):
    """A worker that serves needs no probe: every answer shows that it turns."""
    with started(site) as w, contextlib.closing(w.connect()) as client:
        for _ in range(20):
            before = w.beats()
            assert client.request("/").status == 200
            assert w.beats() > before


def test_one_beat_for_a_probe(site):
    """An idle worker wakes up once for each probe: one turn, one beat; and never by itself."""
    with started(site, channel=True) as w:
        w.wait_asleep()
        beats, (woken, _) = w.beats(), w.switches()
        for i in range(5):
            w.probe()
            w.wait_beats(beats + i + 1)
            w.wait_asleep()
        select.select([w.pidfd], [], [], 0.3)
        assert (w.beats(), w.switches()[0]) == (beats + 5, woken + 5)


def test_stopped_worker_does_not_beat(site):
    """Neither probes nor clients get a beat out of a worker that does not run; when it does again, it makes up for it."""
    with started(site, channel=True) as w:
        w.stop()
        before = w.beats()
        for _ in range(3):
            w.probe()
        client = w.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not select.select([client.sock], [], [], 0.3)[0]
        assert w.beats() == before
        w.kill(signal.SIGCONT)
        assert client.answer().status == 200
        w.wait_beats(before + 1)
        client.close()


def test_messages_are_dropped(site):
    """Whatever comes on the channel, a descriptor too, is read, forgotten and does no harm, nor does it keep clients waiting."""
    with started(site, channel=True) as w:
        fds, before = w.fds(), w.beats()
        socket.send_fds(w.channel, [b'{"cmd":"NODE_HANDLE"}\n'], [w.bell, w.board])
        w.wait_beats(before + 1)
        w.wait_asleep()
        assert w.fds() == fds

        done = threading.Event()

        def flood():
            while not done.is_set():
                w.channel.sendall(b"\0no line at all \xff" * 10000)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for _ in range(50):
                assert w.get("/").status == 200
        finally:
            done.set()
            thread.join()
        w.wait_until(lambda: w.connections == 0)
        assert w.fds() == fds and w.state == READY


def test_channel_is_not_handed_on(site):
    """The descriptor is closed on exec and does not block."""
    with started(site, channel=True) as w:
        flags = open(f"/proc/{w.pid}/fdinfo/{5 + len(w.listeners)}").read().split("flags:")[1].split()[0]
        assert int(flags, 8) & os.O_CLOEXEC and int(flags, 8) & os.O_NONBLOCK


# The end of the channel


def test_channel_ends_without_clients(site):
    """The master is gone, although the parent is still there: the worker leaves at once."""
    with started(site, channel=True) as w:
        begin = time.monotonic()
        w.channel.close()
        assert (w.wait_exit(), w.state) == (0, DRAINING)
        assert time.monotonic() - begin < 4  # nothing was waited for


def test_channel_is_shut_down(site):
    """Half an end is one too: nothing will ever come again."""
    with started(site, channel=True) as w:
        w.channel.shutdown(socket.SHUT_WR)
        assert (w.wait_exit(), w.state) == (0, DRAINING)


def test_channel_ends_with_clients(site):
    """Requests are finished, idle connections closed, a download goes on; but nobody limits it, so it is cut after 5 s."""
    with started(site, channel=True) as w:
        slow, used = w.connect(rcvbuf=8192), w.connect()
        slow.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.fill()
        assert used.request("/").status == 200
        begin, ticks = time.monotonic(), w.cpu_ticks()
        with w.stopped():  # an idle connection has a second for one more request
            w.channel.close()
            used.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        w.wait_state(DRAINING)
        answer = used.answer()
        assert answer.status == 200 and answer.closes and used.at_end()
        used.close()
        w.wait_until(lambda: w.connections == 1)
        w.wait_asleep()
        assert w.cpu_ticks() - ticks < 10  # the end of the channel is no event that comes again and again
        assert w.wait_exit() == 0 and w.connections == 0
        assert 4 < time.monotonic() - begin
        slow.close()


def test_channel_ends_in_a_drain(site):
    """A worker that drains by order of a master that dies meanwhile is an orphan as well."""
    with started(site, channel=True) as w:
        slow = w.connect(rcvbuf=8192)
        slow.send(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.fill()
        w.kill()
        w.wait_state(DRAINING)
        begin = time.monotonic()
        w.channel.close()
        assert w.wait_exit() == 0
        assert 4 < time.monotonic() - begin
        slow.close()


def test_channel_ends_before_the_queue(site):
    """Connections that a stopped worker finds together with the end of the channel are for others, however many probes it has
    missed."""
    with started(site, channel=True) as w:
        w.stop()
        for _ in range(200):
            w.probe()
        waiting = [w.connect() for _ in range(20)]
        w.channel.close()
        w.kill(signal.SIGCONT)
        assert w.wait_exit() == 0 and w.cell()[2] == 0
        for client in waiting:
            client.close()


# Leaving


def test_max_requests(site):
    """The worker says once that it has served enough, gives no reason as it is no failure, and serves on until it is sent away."""
    with started(site, "--max-requests=10") as w, contextlib.closing(w.connect()) as client:
        assert client.request("/").status == 200
        rings(w)  # it has rung for READY by now
        for _ in range(8):
            assert client.request("/").status == 200
        w.wait_asleep()  # what it does after the ninth answer is done
        assert (w.state, rings(w)) == (READY, 0)
        assert client.request("/").status == 200
        w.wait_until(lambda: w.state == LEAVING)

        for _ in range(20):
            assert not client.request("/").closes
            assert w.get("/").status == 200
        assert (w.state, rings(w), w.reason()) == (LEAVING, 1, "")
        with w.stopped():
            w.retire_stopped()
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        w.wait_state(DRAINING)
        assert client.answer().closes and client.at_end()
        client.close()
        assert (w.wait_exit(), w.state) == (0, DRAINING)


def test_no_limit_of_requests(site):
    """0 is no limit."""
    with started(site, "--max-requests=0") as w:
        for _ in range(5):
            assert w.get("/").status == 200
        assert w.state == READY


def test_limit_reached_before_it_was_ready(site):
    """The first connection is answered before READY is said, and may be the last one to count: LEAVING is what stays."""
    with started(site, "--max-requests=1") as w:
        w.stop()
        client = w.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with w.sibling() as other:
            assert client.answer().status == 200
            other.wait_state(LEAVING)
            assert not client.request("/").closes
            other.wait_asleep()
            assert (other.state, other.cell()[3]) == (LEAVING, 2)
            client.close()
            other.kill()
            assert (other.wait_exit(), other.state) == (0, DRAINING)


def test_limit_reached_in_a_drain(site):
    """A worker that was sent away does not ask for it: DRAINING stays DRAINING."""
    with started(site, "--max-requests=3") as w:
        clients = [w.connect() for _ in range(3)]
        for client in clients[:2]:
            assert client.request("/").status == 200
        w.wait_until(lambda: w.connections == 3)
        rings(w)
        with w.stopped():
            w.retire_stopped()
            for client in clients[::2]:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            clients[1].send(b"GET / HTTP/1.1\r\n")  # the rest of which it waits for
        w.wait_until(lambda: w.state == DRAINING)
        assert clients[2].answer().closes and clients[2].at_end()
        assert clients[0].answer().closes
        w.wait_asleep()
        assert w.state == DRAINING
        for client in clients:
            client.close()
        assert (w.wait_exit(), w.state, rings(w)) == (0, DRAINING, 1)


def test_drain_without_descriptors(site):
    """What had woken it up cannot be taken, as it has no descriptor left: it waits for its last client without a busy loop."""
    with started(site) as w, contextlib.closing(w.connect()) as open_one:
        open_one.send(b"GET / HTTP/1.1\r\n")  # the rest of which does not come for a while
        w.wait_until(lambda: w.connections == 1)
        w.wait_asleep()
        w.stop()
        resource.prlimit(w.pid, resource.RLIMIT_NOFILE, (len(w.fds()), 100))
        waiting = w.connect()
        w.kill()
        w.kill(signal.SIGCONT)
        w.wait_state(DRAINING)
        assert not select.select([w.pidfd], [], [], 1.2)[0]  # as long as a pause of accepting, and longer
        before = w.cpu_ticks()
        assert not select.select([w.pidfd], [], [], 0.5)[0]
        assert w.cpu_ticks() - before <= 2
        resource.prlimit(w.pid, resource.RLIMIT_NOFILE, (100, 100))
        open_one.send(b"Host: a\r\n\r\n")
        assert open_one.answer().status == 200
        assert w.wait_exit() == 0
        waiting.close()


# What keep-alive clients see

REQUEST = b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n"
LATE = 15  # seconds


class Load:
    """Keep-alive clients that think for up to so many seconds between an answer and the next request.

    A client may reopen its connection after an answer that says so, or when it finds it closed before it has sent anything
    on it. Whatever else ends a connection is a failure.
    """

    def __init__(self, worker, n, think):
        self.worker, self.think, self.poll = worker, think, select.poll()
        self.answers = [0] * n
        self.counts = collections.Counter()
        self.clients = [None] * n
        self.asked_at = [None] * n
        self.by_fd = {}
        self.due = []
        for i in range(n):
            self.rest(i)

    def rest(self, i):
        self.asked_at[i] = None
        heapq.heappush(self.due, (time.monotonic() + random.uniform(0, self.think), i))

    def drop(self, i):
        sock = self.clients[i].sock
        self.poll.unregister(sock)
        del self.by_fd[sock.fileno()]
        sock.close()
        self.clients[i] = None

    def fail(self, i, what):
        self.counts[f"failed: {what}"] += 1
        self.drop(i)
        self.rest(i)

    def ask(self, i):
        client = self.clients[i]
        if client and select.select([client.sock], [], [], 0)[0]:
            if not client.at_end():
                return self.fail(i, "an answer that nobody asked for")
            self.counts["closed while idle"] += 1
            self.drop(i)
        if not self.clients[i]:
            client = self.clients[i] = self.worker.connect()
            self.counts["connections"] += 1
            self.by_fd[client.sock.fileno()] = i
            self.poll.register(client.sock, select.POLLIN)
        client.send(REQUEST)
        self.asked_at[i] = time.monotonic()

    def read(self, i):
        """Of a client that has asked; one that has not finds out when it is going to."""
        client = self.clients[i]
        if not client.fill():
            return self.fail(i, "closed without an answer")
        head, end, body = client.buffer.partition(b"\r\n\r\n")
        if len(body) < 1024 and head.startswith(b"HTTP/1.1 200 "):
            return None
        answer = client.answer()
        if (answer.status, answer.body, client.buffer) != (200, b"s" * 1024, b""):
            return self.fail(i, f"a wrong answer, {answer.status}")
        if time.monotonic() - self.asked_at[i] > LATE:
            self.counts["failed: late"] += 1
        self.answers[i] += 1
        if answer.closes:
            self.counts["closed by the answer"] += 1
            if not client.at_end():
                self.counts["failed: bytes behind the last answer"] += 1
            self.drop(i)
        return self.rest(i)

    def attempt(self, step, i):
        try:
            step(i)
        except OSError as e:
            self.fail(i, type(e).__name__)

    def turn(self):
        while self.due and self.due[0][0] <= time.monotonic():
            self.attempt(self.ask, heapq.heappop(self.due)[1])
        wait = self.due[0][0] - time.monotonic() if self.due else DEADLINE
        for fd, _ in self.poll.poll(max(wait, 0) * 1000):
            i = self.by_fd[fd]
            if self.asked_at[i]:
                self.attempt(self.read, i)

    def run_until(self, condition):
        end = time.monotonic() + 3 * DEADLINE
        while not condition():
            assert time.monotonic() < end, f"it did not happen; {self.counts}"
            self.turn()

    def everybody_gets(self, n):
        """Until every client has had so many more answers."""
        wanted = [a + n for a in self.answers]
        self.run_until(lambda: all(a >= w for a, w in zip(self.answers, wanted)))

    def finish(self):
        """Waits for the last answers. Returns what failed."""
        self.due = []
        while any(self.asked_at):
            self.turn()
            self.due = []
        for client in self.clients:
            if client:
                client.close()
        return {what: n for what, n in self.counts.items() if what.startswith("failed")}


def ended(w):
    return bool(select.select([w.pidfd], [], [], 0)[0])


def test_no_request_is_lost_when_a_worker_goes(site):
    """200 keep-alive clients that are never idle for long; one worker after the other is replaced and drained: no request
    fails, and what the workers have answered is what the clients have got."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(started(site))]
        workers.append(stack.enter_context(workers[0].sibling()).wait_state(READY))
        load = Load(workers[0], 200, 0.05)
        load.everybody_gets(3)
        for old in range(5):
            workers.append(stack.enter_context(workers[-1].sibling()).wait_state(READY))
            load.everybody_gets(1)
            workers[old].kill()
            load.run_until(lambda: ended(workers[old]))
            assert (workers[old].wait_exit(), workers[old].connections) == (0, 0)
            load.everybody_gets(1)
        assert load.finish() == {}
        assert load.counts["closed by the answer"] >= 200
        assert sum(w.cell()[3] for w in workers) == sum(load.answers)
