# SPDX-License-Identifier: MIT
"""Who gets a connection of a Node app: by turns, by lag, by the client's address, or whoever is first; changed by a reload."""

import contextlib
import json
import os
import signal
import socket
import struct

import pytest

import load
from harness import inode, tcp, unix, wait_readable
from lifecycle import stop_others
from node_app import ask, begin, block, instances, pid_of, run_client, served_by, workers
from test_reload import reload
from worker_harness import DEADLINE, Client

BALANCES = ["round-robin", "least-lag", "source", "inherit"]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def pids(m):
    return {w.pid for w in m.worker_processes()}


def body_pid(answer):
    return json.loads(answer.body)["pid"]


def from_address(m, address):
    """A new connection whose client has that address, of 127.0.0.0/8."""
    _, sock = m.socket_list[0]
    return Client(socket.create_connection(sock.getsockname(), DEADLINE, (address, 0)))


def pid_for(m, address):
    with contextlib.closing(from_address(m, address)) as client:
        return body_pid(client.request("/pid", headers=["Connection: close"]))


def addresses(n):
    return [f"127.0.1.{i + 1}" for i in range(n)]


#
# Policies
#


@pytest.mark.parametrize("settings", ["", 'balance = "round-robin";'], ids=["auto", "round-robin"])
def test_turns(ready, apps, settings):
    """Each gets as many, of connections that come one after the other; and in a rush nobody is left out."""
    m = begin(ready, apps, "deeds.js", workers(settings, 4))
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(40):
            client = stack.enter_context(contextlib.closing(m.connect()))
            found.append(body_pid(client.request("/pid")))
        counts = [found.count(pid) for pid in pids(m)]
        assert sum(counts) == 40 and max(counts) - min(counts) <= 6, counts  # one that is asked for a sign of life is passed over
        rush = [stack.enter_context(contextlib.closing(ask(m, "/pid"))) for _ in range(100)]
        found = [body_pid(client.answer()) for client in rush]
        assert all(found.count(pid) >= 10 for pid in pids(m)), found


def test_way_for_workers(ready, apps):
    """The master makes way for its workers while it passes connections, and they inherit nothing of that."""
    m = begin(ready, apps, "deeds.js")
    with contextlib.closing(m.connect()) as client:
        client.request("/pid")
    assert os.sched_getscheduler(m.process.pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_BATCH
    assert {os.sched_getscheduler(pid) for pid in pids(m)} == {os.SCHED_OTHER}


class Beside:
    """Clients of two workers, one of which blocks: whoever of them is answered, is so by the other one."""

    def __init__(self, m, stack):
        self.m, self.stack, self.left = m, stack, {}
        self.other = instances(m)[1].pid
        stack.enter_context(contextlib.closing(block(m, instances(m)[0].pid)))

    def ask(self, n):
        for _ in range(n):
            client = self.stack.enter_context(contextlib.closing(ask(self.m, "/pid")))
            self.left[client.sock] = client

    def wait(self, n):
        for _ in range(n):
            answered = self.left.pop(wait_readable(list(self.left), "an answer")[0])
            assert body_pid(answered.answer()) == self.other


def test_busy_one_is_passed_over(ready, apps):
    """Turns do not run after a worker that takes nothing any more: most clients are served by the others."""
    with contextlib.ExitStack() as stack:
        beside = Beside(begin(ready, apps, "deeds.js"), stack)
        beside.ask(60)
        beside.wait(40)


def test_least_lag(ready, apps):
    """A worker that has some on the way which it does not take is passed none before the others have as many."""
    m = begin(ready, apps, "deeds.js", workers('balance = "least-lag";'))
    assert served_by(m, 2, lambda m: pid_of(m, "/pid")) == pids(m)
    with contextlib.ExitStack() as stack:
        beside = Beside(m, stack)
        beside.ask(8)  # up to half of them wait for that one
        beside.wait(3)
        for _ in range(20):
            beside.ask(1)
            beside.wait(1)


def test_source(ready, apps):
    """The same worker for the same address, and many addresses for all workers. One that dies has its clients served by the next
    one in its slot; no other client moves."""
    m = begin(ready, apps, "deeds.js", workers('balance = "source";', 4))
    where = {address: pid_for(m, address) for address in addresses(30)}
    assert set(where.values()) == pids(m)
    assert where == {address: pid_for(m, address) for address in addresses(30)}

    victim = instances(m)[2]
    victim.kill(signal.SIGKILL)
    m.wait_status(lambda s: s.startswith("3/4"))
    m.wait_status(lambda s: s.startswith("4/4"))
    successor = instances(m)[2].pid
    assert {address: pid_for(m, address) for address in addresses(30)} == {
        address: successor if pid == victim.pid else pid for address, pid in where.items()}


def test_inherit(ready, apps):
    """All have the socket: whoever can accept does, and the master is not asked."""
    m = begin(ready, apps, "deeds.js", workers('balance = "inherit";'))
    for worker in m.worker_processes():
        others = stop_others(m, worker.pid)
        assert pid_of(m, "/pid") == worker.pid
        for other in others:
            other.kill(signal.SIGCONT)
    worker = m.worker_processes()[0]
    assert f"socket:[{inode(m.socket_list[0][1])}]" in worker.fds().values()


def test_a_socket_for_each(ready, apps):
    """ListenStream= twice with ReusePort=yes: the kernel shares connections out to the workers, and what is in the queue of one
    that dies is the others'."""
    first = socket.create_server(("127.0.0.1", 0), backlog=1024, reuse_port=True)
    second = socket.create_server(first.getsockname(), backlog=1024, reuse_port=True)
    m = begin(ready, apps, "deeds.js", workers('balance = "inherit";'), sockets=[("http", first), ("http", second)])
    assert served_by(m, 2, lambda m: pid_of(m, "/pid")) == pids(m)
    victim = instances(m)[0]
    victim.kill(signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(ask(m, "/pid"))) for _ in range(30)]
        victim.kill(signal.SIGKILL)
        found = [body_pid(client.answer()) for client in clients]
    assert victim.pid not in found
    m.wait_status(lambda s: s.startswith("2/2"))
    assert served_by(m, 2, lambda m: pid_of(m, "/pid")) == pids(m)


def test_switch(ready, apps):
    """From any to any other by a reload, under load: not one request fails."""
    m = begin(ready, apps, "deeds.js", workers('balance = "inherit";'))
    with load.of(m, connections=0, fresh=4, limit=15) as clients:
        for balance in [*BALANCES, "least-lag", "inherit", "round-robin", "auto"]:
            m.write_config(workers(f'balance = "{balance}";'))
            reload(m)
            m.wait_ready()
            clients.wait(20)
    clients.check()
    assert "reload failed" not in "".join(m.statuses())


#
# Addresses
#


def test_source_on_a_unix_socket(start, apps, tmp_path):
    """Refused: there every client would look the same, and one worker would get them all."""
    m = begin(start, apps, "deeds.js", workers('balance = "source";'), sockets=[("http", unix(tmp_path / "socket"))])
    assert m.wait_exit() != 0
    assert "source" in m.stderr() and "proxy_protocol" in m.stderr()


def proxy_header(address, command=0x21):
    """PROXY protocol version 2: a connection from that address, or with another command one of the proxy itself."""
    if ":" in address:
        pack, family = (lambda a: socket.inet_pton(socket.AF_INET6, a)), 0x21
        body = pack(address) + pack("2001:db8::1") + struct.pack("!HH", 40000, 443)
    else:
        family = 0x11
        body = socket.inet_aton(address) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 40000, 443)
    body += b"\x04\x00\x04\0\0\0\0"  # a further value that means nothing
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def proxied(m, address, pieces=None):
    """The pid of the worker that a client of a proxy gets; the header may come in pieces."""
    with contextlib.closing(m.connect()) as client:
        header = proxy_header(address)
        if pieces:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(0, len(header), pieces):
                client.send(header[i : i + pieces])
        else:
            client.send(header)
        return body_pid(client.request("/pid", headers=["Connection: close"]))


PROXY = 'balance = "source"; proxy_protocol = true;'


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_source_behind_a_proxy(ready, apps, tmp_path, family):
    """It is the address that the proxy tells which counts, of either family, and the app sees nothing of that."""
    sock = tcp() if family == "tcp" else unix(tmp_path / "socket")
    m = begin(ready, apps, "deeds.js", workers(PROXY, 4), sockets=[("http", sock)])
    clients = [f"198.51.100.{i}" for i in range(20)] + [f"2001:db8::{i}" for i in range(20)]
    where = {address: proxied(m, address) for address in clients}
    assert set(where.values()) == pids(m)
    assert where == {address: proxied(m, address) for address in clients}
    # as one, the same client is where the other family's form of its address is
    assert {proxied(m, a) for a in ("198.51.100.7", "::ffff:198.51.100.7")} == {where["198.51.100.7"]}


def test_header_in_pieces(ready, apps):
    """Byte by byte, and together with the request; and the proxy's own question whether there is somebody."""
    m = begin(ready, apps, "deeds.js", workers(PROXY))
    assert proxied(m, "198.51.100.1", pieces=1) == proxied(m, "198.51.100.1") == proxied(m, "198.51.100.1", pieces=13)
    with contextlib.closing(m.connect()) as client:
        client.send(proxy_header("198.51.100.1") + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer().body == b"hello\n"
    with contextlib.closing(m.connect()) as client:
        client.send(SIGNATURE + b"\x20\x00\x00\x00")
        assert client.request("/").body == b"hello\n"
    with contextlib.closing(m.connect()) as client:
        client.send(SIGNATURE + b"\x21\x11\xff\xff" + bytes(65535))
        assert client.request("/").body == b"hello\n"


def test_line(ready, apps):
    """The header of version 1 says the same as that of version 2."""
    m = begin(ready, apps, "deeds.js", workers(PROXY, 4))
    for address, family in (("198.51.100.7", "TCP4"), ("::ffff:198.51.100.7", "TCP6"), ("2001:db8::5", "TCP6")):
        with contextlib.closing(m.connect()) as client:
            client.send(f"PROXY {family} {address} {address} 1 2\r\n".encode())
            assert body_pid(client.request("/pid", headers=["Connection: close"])) == proxied(m, address)
    with contextlib.closing(m.connect()) as client:
        client.send(b"PROXY UNKNOWN whatever\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer().body == b"hello\n"


@pytest.mark.parametrize("text", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PROXY TCP4 198.51.100.1 192.0.2.1 040000 443\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
    SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
    b"PROXY UNKNOWN " + bytes(94),
], ids=["none", "wrong line", "version 3", "short", "long line"])
def test_no_header(ready, apps, text):
    """Who does not begin with it is closed, as it could say that it is anybody; the next one is served."""
    m = begin(ready, apps, "deeds.js", workers(PROXY))
    with contextlib.closing(m.connect()) as client:
        client.send(text)
        with contextlib.suppress(ConnectionResetError):
            assert client.sock.recv(100) == b""
    assert proxied(m, "198.51.100.1") in pids(m)


def test_silent_clients(ready, apps):
    """Those that send no header, or half of one, hold up nobody; and neither do those that hang up."""
    m = begin(ready, apps, "deeds.js", workers(PROXY))
    with contextlib.ExitStack() as stack:
        for n in range(60):
            client = stack.enter_context(contextlib.closing(m.connect()))
            client.send(proxy_header("198.51.100.1")[: n % 20])
            if n % 3 == 0:
                client.reset()
        assert proxied(m, "198.51.100.1") in pids(m)


#
# socket.io
#


def test_socket_io(ready, apps, packages):
    """By polling each request of a session is a connection of its own, and has to reach the worker that knows the session."""
    m = begin(ready, apps, "socket-io.js", workers('balance = "source";', 4))
    port = m.socket_list[0][1].getsockname()[1]
    told = run_client(apps, "io-client.js", port, "polling", *addresses(16))
    assert len(told) == 16 * 5
    where = {}
    for answer in told:
        assert where.setdefault(answer["address"], answer["pid"]) == answer["pid"]
    assert len(set(where.values())) > 1
