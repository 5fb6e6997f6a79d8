# SPDX-License-Identifier: MIT
"""The worker halves of Node's own tests of its cluster, as they are, under musterd.

Such a test is one file: `if (cluster.isPrimary)` forks workers and says what must come of it, else it is the worker. Here
musterd starts the file as a worker, and does what Node's primary would; a function here does what the test's primary half does
beyond fork(), and asserts what that asserts. Where only a primary in JavaScript could see it, the function says what is looked at
instead. The files' own checks, such as common.mustCall(), are in the exit status. They are of one version of Node; all run them.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile

import pytest

from harness import DEADLINE, MUSTER, Process, tcp, unix

HERE = pathlib.Path(__file__).parent
NODE_SOURCES = HERE.parent / "node-sources"
NODE_VERSIONS = HERE.parent / "node-versions"
WITNESS = HERE / "node/witness.js"
VERSIONS = os.environ.get("MUSTER_NODE_VERSIONS", "18 20 22 24").split()

PEACEFUL = "exited with status 0"

both_ways = pytest.mark.parametrize("balance", ["round-robin", "inherit"])


def lines_of(program):
    r = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    print(r.stderr)
    return r.stdout.splitlines()


@pytest.fixture(scope="session")
def sources():
    """The folder of Node's tests."""
    found = lines_of(NODE_SOURCES)
    assert found, "there are no tests of Node: see tests/node-sources"
    return pathlib.Path(found[0])


@pytest.fixture(scope="session")
def programs():
    return dict(line.split(" ", 1) for line in lines_of(NODE_VERSIONS))


@pytest.fixture(params=VERSIONS, ids="v{}".format)
def node(request, programs):
    assert request.param in programs, f"there is no Node {request.param}: see tests/node-versions"
    return programs[request.param]


def unused(name):
    """The master wants a socket to serve, and an app's only one would be taken for whatever it asks for. With one of the other kind
    it binds, as Node's primary does."""
    return ("unused", tcp() if "dgram" in name else socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def has(**members):
    """What says whether a message is an object with these."""
    return lambda message: isinstance(message, dict) and members.items() <= message.items()


class Half:
    """One master, the primary of a worker half. `ready`: the worker is when it "listens", as in Node, or once it is "loaded"."""

    def __init__(self, start, node, file, arguments, folder, count, ready, balance, environment, sockets):
        self.folder, self.witness = folder, folder / "witness"
        self.witness.touch()
        (folder / ".tmp.0").mkdir()  # what tmpdir.refresh() of the primary half makes
        variables = {"WITNESS": str(self.witness), "NODE_TEST_DIR": str(folder), "NODE_TEST_KNOWN_GLOBALS": "0", **environment}
        if ready == "loaded":
            variables["WITNESS_READY"] = "1"
        command = [node, "--require", WITNESS, file, *arguments]
        app = (
            f'kind = "node"; directory = "{folder}"; command = [ {", ".join(json.dumps(str(word)) for word in command)} ];'
            f' environment = {{ {" ".join(f"{name} = {json.dumps(value)};" for name, value in variables.items())} }};'
        )
        config = (
            f'workers: {{ count = {count}; soak = "20ms"; start_timeout = "1min"; stop_timeout = "1min"; watchdog = "0";'
            f' balance = "{balance}"; wait_ready = {"true" if ready == "loaded" else "false"}; }};\n'
        )
        self.m = start(config, app=app, sockets=[*sockets, ("control", unix(folder / "control"))])

    # What the worker says

    def sent(self):
        """Each (pid, message), as far as its line is whole."""
        whole = self.witness.read_text().rpartition("\n")[0]
        return [(line["pid"], line["message"]) for line in map(json.loads, whole.splitlines())]

    def wait_sent(self, wanted, n=1):
        """Until workers have sent so many that are wanted; their (pid, message)."""
        condition = wanted if callable(wanted) else lambda message: message == wanted and type(message) is type(wanted)

        def found():
            those = [(pid, message) for pid, message in self.sent() if condition(message)]
            return those if len(those) >= n else None

        return self.m.wait_until(found, f"{n} messages in {self.sent()}")

    def wait_loaded(self, n=1):
        return [pid for pid, _ in self.wait_sent("loaded", n)]

    def wait_listening(self, n=1):
        """The pid and the address of each server."""
        return self.wait_sent(has(act="listening"), n)

    def wait_port(self):
        """Of the only server, when its worker is ready."""
        self.m.wait_ready()
        ((_, address),) = self.wait_listening()
        return address["port"]

    # What the primary does

    def muster(self, *arguments):
        r = subprocess.run(
            [MUSTER, f"--socket={self.folder / 'control'}", *arguments], capture_output=True, text=True, timeout=DEADLINE
        )
        assert r.returncode == 0, r.stderr
        return r.stdout

    def send(self, message, *options):
        self.muster("send", "web", *options, json.dumps(message))

    def disconnect(self):
        """All workers are told to. They have ended, and the master with them, when this returns: how, pid to text."""
        self.m.kill()
        assert self.m.wait_exit() == 0
        return self.ends()

    # How it ends

    def ends(self):
        """What is said about each: pid to text."""
        found = re.findall(r"Worker \d+ \(pid (\d+)\) ((?:exited|was killed).*)\.\n", self.m.stderr())
        return {int(pid): text for pid, text in found}

    def wait_end(self, pid):
        return self.m.wait_until(lambda: self.ends().get(pid), f"a line about {pid}")

    def finish(self, n=1):
        """All that there ever were, so many, have disconnected in peace."""
        assert list(self.disconnect().values()) == [PEACEFUL] * n

    def assert_start_fails(self, end, reason=None):
        """A worker that was never ready: its end is that of the first start, whose reason it is."""
        (pid,) = self.wait_loaded()
        assert self.m.wait_exit() == 1
        assert self.ends() == {pid: end}
        assert self.m.statuses()[-1] == f"Failed to start: worker 1 {reason or end}"


@pytest.fixture
def half(start, node, sources):
    """A function that starts the worker half of a test."""
    with contextlib.ExitStack() as stack:

        def run(name, *arguments, count=1, ready="listens", balance="round-robin", environment=None, sockets=None):
            (file,) = sources.glob(f"test/*/test-cluster-{name}.js")
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))  # a short one, for sockets
            return Half(start, node, file, arguments, folder, count, ready, balance, environment or {}, sockets or [unused(name)])

        yield run


def connect(port, host="127.0.0.1"):
    client = socket.create_connection((host, port), DEADLINE)
    client.settimeout(DEADLINE)
    return client


def read_all(client):
    with client:
        return b"".join(iter(lambda: client.recv(4096), b""))


# Sockets, and ends


@both_ways
def test_basic(half, balance):
    """listen(0) with an address: what is told of it, and the way from its start to its end."""
    h = half("basic", balance=balance)
    h.m.wait_ready()
    ((pid, address),) = h.wait_listening()
    assert (address["address"], address["addressType"]) == ("127.0.0.1", 4)
    assert 1 <= address["port"] <= 65535 and address.get("fd") is None
    assert h.disconnect() == {pid: PEACEFUL}


@both_ways
def test_disconnect(half, balance):
    """Eight workers with the same two servers, all told to disconnect; and then a second time."""
    h = half("disconnect", count=8, balance=balance)
    h.m.wait_ready()
    first = {pid for pid, _ in h.wait_listening(16)}
    h.m.kill(signal.SIGHUP)
    h.m.wait_message("RELOADING=1")
    h.m.wait_ready()
    assert {h.wait_end(pid) for pid in first} == {PEACEFUL}

    ports = {address["port"] for _, address in h.wait_listening(32)}
    assert len(ports) == 2
    assert [read_all(connect(port)) for port in ports] == [b"echo"] * 2
    h.finish(16)


def test_passed_socket(half):
    """basic once more, with a socket of systemd's: it is told what it asked for, and has that."""
    h = half("basic", sockets=[("http", tcp())])
    port = h.m.socket_list[0][1].getsockname()[1]
    h.m.wait_ready()
    ((pid, address),) = h.wait_listening()
    assert (address["address"], address["port"]) == ("127.0.0.1", port)
    assert h.disconnect() == {pid: PEACEFUL}


def test_message(half):
    """A message each way beside the server; the worker says on its connection what it has got."""
    h = half("message")
    with connect(h.wait_port()) as client:
        h.send("message from primary")
        assert json.loads(client.recv(4096)) == {"code": "received message", "echo": "message from primary"}
        h.wait_sent("message from worker")
    h.finish()


def test_worker_exit(half):
    """It exits in its first listen(), before it says that it listens: the status is told, and it is a failure."""
    half("worker-exit").assert_start_fails("exited with status 42")


def test_worker_disconnect(half):
    """One of two is told to: it hears of it, and exits with a status of its own, which is told. Nobody takes its place."""
    h = half("worker-disconnect", count=2)
    h.m.wait_ready()
    pids = {pid for pid, _ in h.wait_listening(2)}
    h.muster("scale", "web", "1")
    (record,) = h.m.wait_until(lambda: json.loads(h.muster("--json", "exits", "web"))["exits"], "an exit")
    assert (record["code"], record["status"], record["signal"]) == ("exited", 42, None)
    assert [worker.pid for worker in h.m.worker_processes()] == list(pids - {record["pid"]})
    assert list(h.disconnect().values()) == ["exited with status 42"] * 2


def test_worker_kill(half):
    """SIGKILL when it listens: so it is told, and the place is filled again."""
    h = half("worker-kill")
    h.m.wait_ready()
    ((pid, _),) = h.wait_listening()
    Process(pid, h.m).kill(signal.SIGKILL)
    (_, (successor, _)) = h.wait_listening(2)
    h.m.wait_until(lambda: f"(pid {successor}) is ready" in h.m.stderr(), "the successor's readiness")
    (record,) = json.loads(h.muster("--json", "exits", "web"))["exits"]
    assert (record["pid"], record["code"], record["signal"]) == (pid, "killed", "SIGKILL")
    assert h.disconnect() == {pid: "was killed by signal 9, SIGKILL", successor: PEACEFUL}


def test_primary_kill(half):
    """A worker does not outlive its primary."""
    h = half("primary-kill")
    h.m.wait_ready()
    ((pid, _),) = h.wait_listening()
    worker = Process(pid)
    h.m.kill(signal.SIGKILL)
    assert h.m.wait_exit() == -signal.SIGKILL
    worker.wait_end()


def test_worker_wait_server_close(half):
    """Told to disconnect, it stays until its client has gone, and only then the channel ends."""
    h = half("worker-wait-server-close")
    with connect(h.wait_port()) as client:
        assert client.recv(1) == b"."
        h.m.kill()
        h.wait_sent(has(act="close"))
        assert h.ends() == {}
    assert h.m.wait_exit() == 0
    assert list(h.ends().values()) == [PEACEFUL]


def test_dgram_1(half):
    """Four workers share a socket: each takes ten datagrams, and no more."""
    h = half("dgram-1", count=4)
    h.m.wait_ready()
    ports = {address["port"] for _, address in h.wait_listening(4)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(40):
            client.sendto(b"hello world", ("127.0.0.1", *ports))
    h.wait_sent({"received": 10}, 4)
    h.finish(4)


def test_eaddrinuse(half):
    """A port that is taken is an error, and when it is free the same listen() succeeds."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        h = half("eaddrinuse", "worker", taken.getsockname()[1], ready="loaded")
        h.wait_sent("stop-listening")
    h.m.wait_ready()
    h.send("stopped-listening")
    h.wait_sent(has(act="close"))
    h.finish()


# Messages, handles, errors


def test_bind_twice(half):
    """Two masters: the worker of the second cannot have the port of the first one's."""
    one, two = half("bind-twice", "one"), half("bind-twice", "two", ready="loaded")
    port = one.wait_port()
    assert one.wait_sent({"msg": "READY", "port": port})
    two.m.wait_ready()
    two.send({"msg": "START", "port": port})
    two.wait_sent("EADDRINUSE")
    for h in one, two:
        h.send("QUIT")
        assert h.wait_end(h.wait_loaded()[0]) == PEACEFUL


def test_child_index_net(half):
    """Two servers on port 0, and after them two more: they are told apart, and it exits."""
    h = half("child-index-net")
    assert h.wait_end(h.wait_loaded()[0]) == PEACEFUL


def test_disconnect_idle_worker(half):
    """Two workers that have done nothing yet. That none is left for the primary is the master's exit."""
    h = half("disconnect-idle-worker", count=2, ready="loaded")
    h.m.wait_ready()
    h.finish(2)


def test_http_pipe(half):
    """A unix socket with a relative path, and a connection without addresses. Its end is followed by a new one, which says the same."""
    h = half("http-pipe")
    (pid, _), *_ = h.wait_sent("DONE")
    assert h.wait_end(pid) == PEACEFUL


def test_kill_infinite_loop(half):
    """SIGTERM ends it while it never returns to its event loop."""
    h = half("kill-infinite-loop")
    (pid,) = h.wait_loaded()
    Process(pid, h.m).kill(signal.SIGTERM)
    h.assert_start_fails("was killed by signal 15, SIGTERM")


def test_listening_port(half):
    """listen(0) alone: a number, and not 0."""
    h = half("listening-port")
    port = h.wait_port()
    assert isinstance(port, int) and port > 0
    h.finish()


def test_net_listen(half):
    """listen() without a port: it exits from there with 0, which a worker that never listened has no reason to."""
    half("net-listen").assert_start_fails(PEACEFUL)


def test_net_send(half):
    """A connection sent to the primary. Node's test reads from it what the worker writes at its other end; the master has no use
    for it and closes it, but says that it came, as the worker then closes its own: its channel is the one socket that it has. It
    hears the next message, and goes on."""
    h = half("net-send", "child", ready="loaded")
    h.m.wait_ready()
    ((pid, _),) = h.wait_sent("handle")
    worker = Process(pid, h.m)
    h.m.wait_until(lambda: sum("socket:" in target for target in worker.fds().values()) == 1, "the end of the connection")
    h.send("got")
    h.finish()


def test_rr_ref(half):
    """A server that lets the loop end, does not, and is closed: before its worker would say that it listens."""
    h = half("rr-ref", ready="loaded")
    h.m.wait_ready()
    h.wait_sent("done")
    h.finish()


def test_send_handle_twice(half):
    """A connection that it was passed is sent back, twice; then it disconnects by itself."""
    h = half("send-handle-twice")
    first = h.wait_loaded()[0]
    assert h.wait_end(first) == PEACEFUL
    assert [message for pid, message in h.sent() if pid == first and "send-handle" in message] == ["send-handle-1", "send-handle-2"]


def test_shared_leak(half):
    """A shared socket, a second worker that is only just up, a connection to any of them, and the end of both. Of one that has no
    socket yet the master does not wait for the end."""
    h = half("shared-leak", balance="inherit")
    port = h.wait_port()
    h.muster("scale", "web", "2")
    first, second, *_ = h.wait_loaded(2)
    with connect(port):
        h.m.kill()
        h.wait_sent(has(act="close"))
    assert h.m.wait_exit() == 0
    assert h.ends()[first] == PEACEFUL and h.ends()[second] in (PEACEFUL, "was killed: not needed any more")


def test_uncaught_exception(half):
    """It is about a primary with an error of its own; its worker is one that exits at once."""
    half("uncaught-exception", "child").assert_start_fails(PEACEFUL)


def test_worker_init(half):
    """It gets what it was sent before it could listen to it."""
    h = half("worker-init", ready="loaded")
    h.m.wait_ready()
    h.send("foo")
    h.wait_sent(True)
    h.finish()


def test_worker_no_exit(half):
    """A connection of its own keeps it alive when it is disconnected. Node's primary leaves it at that; the master sends SIGTERM
    after the disconnect, which is what ends it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        h = half("worker-no-exit", ready="loaded")
        h.m.wait_ready()
        h.send({"port": server.getsockname()[1]})
        conn, _ = server.accept()
        with conn:
            assert list(h.disconnect().values()) == ["was killed by signal 15, SIGTERM"]


# More than a list of the best known: what concerns the master as much


@pytest.mark.parametrize("name", [
    "child-index-dgram",
    "dgram-ipv6only",
    "dgram-reuse",
    "listen-pipe-readable-writable",
    "process-disconnect",
    "worker-handle-close",
])
def test_peaceful(half, name):
    """It ends by itself, and its primary half asks for no more than that."""
    h = half(name)
    assert h.wait_end(h.wait_loaded()[0]) == PEACEFUL


@pytest.mark.parametrize("action", ["disconnect", "kill"])
def test_kill_disconnect(half, action):
    """It leaves by itself before it has served anybody."""
    half("kill-disconnect", environment={"action": action}).assert_start_fails(PEACEFUL, "stopped by itself")


def test_ipc_throw(half):
    """An exception while it handles that it could not listen: it has a handler, and the channel goes on to its end."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        h = half("ipc-throw", environment={"PORT": str(taken.getsockname()[1])})
        h.assert_start_fails(PEACEFUL, "stopped by itself")


def test_worker_death(half):
    half("worker-death").assert_start_fails("exited with status 42")


def test_net_listen_backlog(half):
    """A backlog, with which the real one would be another's business."""
    h = half("net-listen-backlog")
    h.wait_sent(True)
    h.m.wait_ready()
    h.finish()


def test_net_listen_ipv6only_false(half):
    """"::" is also for IPv4, and the same for three workers."""
    h = half("net-listen-ipv6only-false", count=3)
    h.m.wait_ready()
    addresses = [address for _, address in h.wait_listening(3)]
    assert len({(address["addressType"], address["address"], address["port"]) for address in addresses}) == 1
    connect(addresses[0]["port"]).close()
    h.finish(3)


def test_server_restart_rr(half):
    """The second worker closes its server, listens again, closes that, and leaves; the first one goes on."""
    h = half("server-restart-rr")
    h.m.wait_ready()
    h.muster("scale", "web", "2")
    first, second, *_ = h.wait_loaded(2)  # there may be a successor already
    assert h.wait_end(second) == PEACEFUL
    assert h.disconnect()[first] == PEACEFUL


def test_net_server_drop_connection(half):
    """A worker that has as many connections as it wants refuses the next; the other takes it."""
    h = half("net-server-drop-connection", count=2, environment={"maxConnections": "%{worker}", "pipePath": ".tmp.0/pipe"})
    h.m.wait_ready()
    h.wait_sent({"action": "listen"}, 2)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(h.folder / ".tmp.0/pipe"))
        pids = [pid for pid, _ in h.wait_sent({"action": "connection"}, 3)]
        h.send({"action": "disconnect"})
        assert {h.wait_end(pid) for pid in pids} == {PEACEFUL}
    assert sorted(map(pids.count, set(pids))) == [1, 2]


def test_dgram_bind_fd(half):
    """A descriptor of the primary's, by its number: the first of systemd's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as passed, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        passed.bind(("127.0.0.1", 0))
        h = half("dgram-bind-fd", count=4, ready="loaded", sockets=[("datagrams", passed)])
        h.m.wait_ready()
        h.send({"fd": 3})
        h.wait_listening(4)
        for _ in range(40):
            client.sendto(b"hello world", passed.getsockname())
        h.wait_sent({"received": 10}, 4)
        h.finish(4)


def test_eaccess(half):
    """The path of a socket that a child of the worker has: it gets the error, and the child's messages are its own."""
    h = half("eaccess", ready="loaded", environment={"PIPE_NAME": ".tmp.0/pipe"})
    h.m.wait_ready()
    h.wait_sent(has(code="EADDRINUSE"))
    h.finish()
