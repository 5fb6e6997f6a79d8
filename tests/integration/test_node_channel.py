# SPDX-License-Identifier: MIT
"""The channel with real Node programs at the other end, as parents and as children, in every version that is looked after.

A scenario has two sides, one in channel_peer.c and one in node/; which of them begins, and which is the parent, are two
questions, so that most run four times. Each side fails by its exit status when something is not as it must be; what is to be
seen from outside is said in lines, and clients of what is passed along are here, in a third process.
"""

import contextlib
import errno
import os
import pathlib
import signal
import socket
import subprocess

import pytest

from harness import BUILD_DIR, DEADLINE, wait_readable

HERE = pathlib.Path(__file__).parent
C_PEER = BUILD_DIR / "tests/integration/channel_peer"
NODE_PEER = HERE / "node/peer.js"
NODE_VERSIONS = HERE.parent / "node-versions"
VERSIONS = os.environ.get("MUSTER_NODE_VERSIONS", "18 20 22 24").split()

both_parents = pytest.mark.parametrize("parent", ["node", "c"], ids="parent={}".format)
both_ways = pytest.mark.parametrize("first", ["node", "c"], ids="from={}".format)


@pytest.fixture(scope="session")
def programs():
    """Version to path, of those that there are."""
    r = subprocess.run([NODE_VERSIONS], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    print(r.stderr)
    return dict(line.split(" ", 1) for line in r.stdout.splitlines())


@pytest.fixture(params=VERSIONS, ids="v{}".format)
def node(request, programs):
    assert request.param in programs, f"there is no Node {request.param}: see tests/node-versions"
    return programs[request.param]


def other(side):
    return "c" if side == "node" else "node"


class Pair:
    """A parent and its child, whose lines are read as they come. Both write to one pipe; its end is the end of both."""

    def __init__(self, node, parent, scenarios, environment=None):
        if parent == "node":
            argv = [node, NODE_PEER, scenarios["node"], C_PEER, scenarios["c"]]
        else:
            argv = [C_PEER, scenarios["c"], node, NODE_PEER, scenarios["node"]]
        env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG") or k.endswith("SAN_OPTIONS")}
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**env, **(environment or {})}, start_new_session=True
        )
        self.parent, self.buffer, self.ended = parent, b"", False

    def fill(self):
        wait_readable([self.process.stdout], f"a line after {self.buffer!r}")
        data = os.read(self.process.stdout.fileno(), 65536)
        self.buffer += data
        self.ended = not data
        return not self.ended

    def line(self):
        while b"\n" not in self.buffer:
            assert self.fill(), f"it has ended with {self.process.wait(DEADLINE)}"
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def port(self):
        """What the side that begins says, and it has said nothing else."""
        _, word, port = self.line().split(" ")
        assert word == "port"
        return int(port)

    def finish(self, *wanted, status=0, child="exited 0", child_told=True):
        """Waits for the end of both, each with its status and told of the channel's end, and no line but these."""
        self.process.stdin.close()
        while self.fill():
            pass
        assert self.process.wait(DEADLINE) == status
        lines = [*wanted, f"{self.parent} child {child}", f"{self.parent} disconnected 0"]
        if child_told:
            lines.append(f"{other(self.parent)} disconnected 0")
        assert sorted(self.buffer.decode().splitlines()) == sorted(lines)

    def close(self):
        if not self.ended:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        with contextlib.suppress(ChildProcessError):  # its child, which came to us
            while not self.ended:
                os.waitpid(-self.process.pid, 0)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def pair(node):
    """A function that starts two peers, which are gone when the test ends: `first` plays one scenario, the other a second."""
    with contextlib.ExitStack() as stack:

        def start(parent, first, scenario, answer, **environment):
            started = Pair(node, parent, {first: scenario, other(first): answer}, environment)
            stack.callback(started.close)
            return started

        yield start


# Messages


@both_parents
@both_ways
def test_values(pair, parent, first):
    """All that JSON can say arrives as it was, and so does what is deep, long, and not of ASCII."""
    pair(parent, first, "values", "echo").finish()


@both_ways
def test_big(pair, first):
    """The longest message, 64 MiB, goes there and back; the one that begins is the child."""
    pair(other(first), first, "big", "echo").finish(f"{first} big {64 << 20}")


@both_parents
@both_ways
def test_order(pair, parent, first):
    """20,000 messages, sent without waiting for any, are answered in their order."""
    pair(parent, first, "order", "echo").finish()


@both_parents
@both_ways
def test_ready(pair, parent, first):
    """The "ready" of process managers, after which the one who waited for it disconnects."""
    pair(parent, first, "ready", "wait-ready").finish(f'{other(first)} message "ready"')


@both_parents
@both_ways
def test_sent(pair, parent, first):
    """Who sends is told that it is done, also of a handle, and that it is too late after the end."""
    late = ["node sent late ERR_IPC_CHANNEL_CLOSED"] if first == "node" else []
    pair(parent, first, "callback", "echo").finish(f"{first} sent plain 0", f"{first} sent handle 0", *late)


@both_parents
def test_other_descriptor(pair, parent):
    """spawn() with the channel at number 4, and nothing at 3 or /dev/null."""
    pair(parent, "node", "values", "echo", PEER_SPAWN="1").finish()


# Handles: the clients are here


def ask(address, family=socket.AF_INET):
    """A request over a new connection. Returns all up to its end."""
    with contextlib.closing(socket.socket(family)) as client:
        client.settimeout(DEADLINE)
        client.connect(address)
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    head, body = answer.split("\r\n\r\n", 1)
    assert head.split("\r\n")[0].endswith(" 200 OK")
    return body


@both_parents
@both_ways
@pytest.mark.parametrize("kind", ["server", "native"])
def test_listening_socket(pair, parent, first, kind):
    """The other one accepts on it and answers, again and again, while the one who sent it lives and no longer accepts."""
    peers = pair(parent, first, f"offer-{kind}", "serve")
    port = peers.port()
    kind = "net.Server" if kind == "server" else "net.Native"
    for _ in range(3):
        assert ask(("127.0.0.1", port)) == f"{other(first)} {kind}\n"
    peers.finish()


@both_parents
@both_ways
def test_unix_socket(pair, parent, first, tmp_path):
    """Likewise for one with a path, of which Node leaves another name."""
    path = str(tmp_path / "s")
    peers = pair(parent, first, "offer-unix", "serve", PEER_SOCKET=path)
    peers.port()
    assert ask(path + (".kept" if first == "node" else ""), socket.AF_UNIX) == f"{other(first)} net.Server\n"
    peers.finish()


@both_parents
@both_ways
def test_connection(pair, parent, first):
    """One that was accepted is answered by the other, whose end is its end: who sent it has closed its own."""
    peers = pair(parent, first, "offer-socket", "serve")
    answer = ask(("127.0.0.1", peers.port()))
    assert answer == f"{other(first)} net.Socket\n"
    peers.finish()


@both_parents
def test_connection_kept_open(pair, parent):
    """With Node's keepOpen both have it, and both write."""
    peers = pair(parent, "node", "offer-socket-keep-open", "serve")
    assert ask(("127.0.0.1", peers.port())) == "c net.Socket\nand node\n"
    peers.finish()


@both_parents
@both_ways
@pytest.mark.parametrize("family, address", [("dgram", "127.0.0.1"), ("dgram6", "::1")], ids=["udp4", "udp6"])
def test_datagram_socket(pair, parent, first, family, address):
    """The other one receives what comes to it, and answers."""
    peers = pair(parent, first, f"offer-{family}", "serve")
    port = peers.port()
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.settimeout(DEADLINE)
        client.connect((address, port))
        for _ in range(3):
            client.send(b"hello")
            assert client.recv(4096).decode() == f"{other(first)} dgram.Socket\n"
    peers.finish()


@both_parents
@both_ways
def test_many_handles(pair, parent, first):
    """1000 of them, a plain message behind each: all come, in order, and each with the message that it was sent with."""
    pair(parent, first, "handles", "take").finish()


# Ends

KILLED = f"killed {int(signal.SIGKILL)}"


@both_parents
@both_ways
def test_disconnect(pair, parent, first):
    """What was sent right before it arrives, from C also what has to wait; the exit statuses are those of the programs."""
    codes = {first: 4, other(first): 3}
    seen = ["node received 102", "c sent handle 0"] if first == "c" else ["c received 100"]
    peers = pair(parent, first, "bye", "wait")
    peers.finish(*seen, status=codes[parent], child=f"exited {codes[other(parent)]}")


@both_parents
def test_killed_child(pair, parent):
    """A child that dies of a message leaves behind the end of the channel, and a handle that nobody got."""
    told = [f"c sent handle {-errno.EPIPE}"] if parent == "c" else []
    pair(parent, parent, "kill", "die").finish(*told, child=KILLED, child_told=False)


def test_cut_node(pair):
    """A Node child that dies in the middle of a message: what was whole is delivered, the rest is an error."""
    peers = pair("c", "node", "cut", "cut-off")
    peers.process.stdin.close()
    lines = [peers.line() for _ in range(3)]
    assert lines == [f"c child {KILLED}", 'c message "first"', f"c disconnected {-errno.EBADMSG}"]
    assert peers.fill() is False and peers.process.wait(DEADLINE) == 0


def test_cut_c(pair):
    """A C child likewise: its Node parent has the first message, and lives."""
    pair("node", "c", "cut", "cut-off").finish('node message "first"', child=KILLED, child_told=False)


# What the child's side does not take, and does not pass on


GRANDCHILD = ["environment: 0", *(f"fd {i}" for i in range(3))]


def test_grandchild(pair):
    """A program started by the C child has neither the channel nor a word of it."""
    peers = pair("node", "c", "grandchild", "wait")
    peers.finish(*GRANDCHILD, "node received 0", status=3)


def test_environment_of_the_parent(pair):
    """What a C parent has in its environment about a channel of its own is not for its child."""
    stale = {"NODE_CHANNEL_SERIALIZATION_MODE": "advanced", "NODE_CHANNEL_FD": "1", "MUSTER_CHANNEL_FD": "1"}
    pair("c", "node", "ready", "wait-ready", **stale).finish('c message "ready"')


def test_advanced_serialization(pair):
    """It is refused as what it is, and the descriptor is kept from others."""
    peers = pair("node", "c", "echo", "wait", PEER_SERIALIZATION="advanced")
    said = f"c no channel {-errno.EPROTONOSUPPORT}"
    peers.finish(*GRANDCHILD, said, "node received 0", status=3, child="exited 5", child_told=False)
