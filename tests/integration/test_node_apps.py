# SPDX-License-Identifier: MIT
"""Unmodified apps of Node serve from every worker, on the sockets that systemd passed: the port they ask for is another one."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess

import pytest

from harness import DEADLINE, tcp, unix
from node_app import begin, connection_to, instances, pid_of, run_client, served_by, tell


def pids(m):
    return {w.pid for w in m.worker_processes()}


def serves(m):
    """Every worker does."""
    n = len(m.worker_processes())
    assert served_by(m, n) == pids(m)


#
# Apps
#


@pytest.mark.parametrize("app", ["plain.js", "cluster.js", "deeds.js"])
def test_plain(ready, apps, app):
    """http alone; and an app that would start a cluster of its own, of which the workers' branch is run."""
    m = begin(ready, apps, app, workers=3)
    assert served_by(m, 3, lambda m: pid_of(m, "/pid")) == pids(m) and len(pids(m)) == 3


@pytest.mark.parametrize("app", ["express.js", "fastify.js", "koa.js", "esm.mjs"])
def test_framework(ready, apps, packages, app):
    """CommonJS and ECMAScript modules, one of which awaits before it listens. It is told the port that it asked for."""
    m = begin(ready, apps, app)
    serves(m)
    if app == "esm.mjs":
        for pid in pids(m):
            m.wait_until(lambda pid=pid: f"esm {pid} listens on 3000\n" in m.stderr(), "what the app was told")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_address(ready, apps, host):
    """IPv4 and IPv6: it is the passed socket that counts, not the address that Node would have taken."""
    serves(begin(ready, apps, "plain.js", sockets=[("http", tcp(host))]))


def test_web_socket(ready, apps, packages):
    """Connections that stay, of the library ws."""
    m = begin(ready, apps, "ws.js")
    lines = run_client(apps, "ws-client.js", m.socket_list[0][1].getsockname()[1], 8)
    assert sorted(line.split(" ", 1)[1] for line in lines) == [f"hello {i}" for i in range(8)]
    assert {int(line.split()[0]) for line in lines} == pids(m)


def test_socket_io(ready, apps, packages):
    """socket.io by web sockets, which need no balance of their own."""
    m = begin(ready, apps, "socket-io.js")
    told = run_client(apps, "io-client.js", m.socket_list[0][1].getsockname()[1], "websocket", *4 * ["127.0.0.1"])
    assert len(told) == 20 and {t["pid"] for t in told} == pids(m)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-keyout", folder / "key", "-out", folder / "certificate"],
                   check=True, capture_output=True)
    return {"KEY": folder / "key", "CERTIFICATE": folder / "certificate"}


def test_https(ready, apps, certificate):
    """A session that began with one worker is resumed by the other: their tickets are the same."""
    m = begin(ready, apps, "https.js", environment=certificate)
    context = ssl.create_default_context(cafile=certificate["CERTIFICATE"])

    def ask(session=None):
        with m.connect().sock as plain, context.wrap_socket(plain, server_hostname="localhost", session=session) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(4096), b""))
            return json.loads(answer.split(b"\r\n\r\n", 1)[1])["pid"], sock.session, sock.session_reused

    first, session, reused = ask()
    assert session and not reused
    seen = set()
    for _ in range(8):
        pid, _, reused = ask(session)
        assert reused, f"worker {pid} did not know the session of worker {first}"
        seen.add(pid)
    assert seen == pids(m)


@contextlib.contextmanager
def datagrams(port=0):
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(DEADLINE)
        if port:
            sock.connect(("127.0.0.1", port))
        else:
            sock.bind(("127.0.0.1", 0))
        yield sock


def test_datagrams(ready, apps):
    """The workers share the socket: when one is killed, what comes next is answered by another one."""
    with datagrams() as passed:
        m = begin(ready, apps, "udp.js", sockets=[("3002", passed)])
        with datagrams(passed.getsockname()[1]) as client:

            def answer():
                client.send(b"hello")
                pid, text = client.recv(4096).decode().split()
                assert text == "hello"
                return int(pid)

            victim = answer()
            assert victim in pids(m)
            next(w for w in m.worker_processes() if w.pid == victim).kill(signal.SIGKILL)
            m.wait_status(lambda s: s.startswith("1/2"))
            assert answer() != victim
            m.wait_status(lambda s: s.startswith("2/2"))
            assert answer() in pids(m) - {victim}


#
# Which socket an app gets
#


def listening(ready, apps, listen, sockets=None, **kwargs):
    """A musterd whose workers have done all their listen(): each is ready by the first one."""
    m = begin(ready, apps, "listen.js", environment={"LISTEN": json.dumps(listen)}, sockets=sockets, **kwargs)
    m.wait_until(lambda: all(f"settled {pid}\n" in m.stderr() for pid in pids(m)), "the end of all listen()")
    return m


def told(m, name=None):
    answer = m.get("/", name)
    assert answer.status == 200
    return json.loads(answer.body)


def port_of(m, name):
    return dict(m.socket_list)[name].getsockname()[1]


def test_by_name(ready, apps):
    """FileDescriptorName= is the port: of several sockets it is that one, whatever their order."""
    m = listening(ready, apps, [{"port": 3000}, {"port": 3001}], [("other", tcp()), ("3001", tcp()), ("3000", tcp())])
    for name, server in ("3000", 0), ("3001", 1):
        assert served_by(m, 2, lambda m, name=name: told(m, name)["pid"]) == pids(m)
        answer = told(m, name)
        assert answer["server"] == server and answer["errors"] == []
        assert [where["port"] for where in answer["listening"]] == [3000, 3001]


def test_by_name_before_port(ready, apps):
    """A name wins over the port that a socket really has."""
    equal, named = tcp(), tcp()
    port = equal.getsockname()[1]
    m = listening(ready, apps, [{"port": port}], [("a", equal), (str(port), named)])
    assert told(m, str(port))["server"] == 0


def test_by_port(ready, apps):
    """With names that say nothing it is the socket with that port."""
    first, second = tcp(), tcp()
    asked = [{"port": sock.getsockname()[1]} for sock in (second, first)]
    m = listening(ready, apps, asked, [("http", first), ("http2", second)])
    assert told(m, "http")["server"] == 1
    assert told(m, "http2")["server"] == 0


def test_by_path(ready, apps, tmp_path):
    """A unix socket that has the path."""
    path = str(tmp_path / "socket")
    m = listening(ready, apps, [{"path": path}, {"port": 3000}], [("a", tcp()), ("b", unix(path))])
    assert served_by(m, 2, lambda m: told(m, "b")["pid"]) == pids(m)
    assert told(m, "b")["server"] == 0
    assert told(m, "b")["listening"][0] == path


@pytest.mark.parametrize("listen, family", [
    ({"port": 3000}, "tcp"),
    ({"port": 3000, "host": "127.0.0.1"}, "tcp"),
    ({"port": 3000}, "unix"),
    ({"path": "/nonexistent/socket"}, "unix"),
], ids=["port", "host", "port-unix", "path"])
def test_the_only_one(ready, apps, tmp_path, listen, family):
    """One socket and one listen(): they belong together, and a port may be a unix socket. Not the other way round: a path that the
    app has for itself is not for the network."""
    sock = tcp() if family == "tcp" else unix(tmp_path / "socket")
    m = listening(ready, apps, [listen], [("http", sock)])
    assert served_by(m, 2, lambda m: told(m)["pid"]) == pids(m)
    assert told(m)["errors"] == []


def test_by_descriptor(ready, apps):
    """listen({ fd: 3 }) is the first socket that was passed, as without a master; fd 4 the second."""
    m = listening(ready, apps, [{"fd": 4}, {"fd": 3}], [("a", tcp()), ("b", tcp())])
    assert told(m, "a")["server"] == 1
    assert told(m, "b")["server"] == 0
    assert served_by(m, 2, lambda m: told(m, "a")["pid"]) == pids(m)


def connect(m, port, host="127.0.0.1"):
    with contextlib.closing(socket.create_connection((host, port), DEADLINE)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


def free_port():
    with contextlib.closing(tcp()) as sock:
        return sock.getsockname()[1]


def test_bound_by_the_master(ready, apps):
    """A port that no socket is for is bound as Node would, for both families and for all workers, and the log says so."""
    port = free_port()
    m = listening(ready, apps, [{"port": 3000}, {"port": port}], [("3000", tcp())])
    for host in "127.0.0.1", "::1":
        assert served_by(m, 2, lambda m, host=host: connect(m, port, host)["pid"]) == pids(m)
    assert connect(m, port)["server"] == 1
    assert any(str(port) in line and "no socket was passed: bound here" in line for line in m.stderr().splitlines())


def test_bound_to_an_address(ready, apps):
    """Only to the one that the app asked for."""
    port = free_port()
    m = listening(ready, apps, [{"port": 3000}, {"port": port, "host": "127.0.0.2"}], [("3000", tcp())])
    assert connect(m, port, "127.0.0.2")["server"] == 1
    with pytest.raises(ConnectionRefusedError):
        connect(m, port)


def test_any_port(ready, apps):
    """listen(0): the master chooses, one for all workers."""
    m = listening(ready, apps, [{"port": 3000}, {"port": 0}], [("3000", tcp())])
    ports = {json.dumps(told(m)["listening"][1]["port"]) for _ in range(8)}
    assert len(ports) == 1
    port = int(ports.pop())
    assert port > 0 and served_by(m, 2, lambda m: connect(m, port)["pid"]) == pids(m)


def test_port_taken(ready, apps):
    """Somebody else has it: the app gets its 'error' event with EADDRINUSE, and what it listens on beside that serves."""
    with contextlib.closing(tcp()) as taken:
        listen = [{"port": 3000}, {"port": taken.getsockname()[1], "host": "127.0.0.1"}]
        m = listening(ready, apps, listen, [("3000", tcp())])
        assert served_by(m, 2, lambda m: told(m)["pid"]) == pids(m)
        assert told(m)["errors"] == ["EADDRINUSE"]


def test_no_right_to_bind(ready, apps):
    """Any other reason is told as it is, too."""
    m = listening(ready, apps, [{"port": 3000}, {"port": 3001, "host": "192.0.2.1"}], [("3000", tcp())])
    assert told(m)["errors"] == ["EADDRNOTAVAIL"]


def test_twice(ready, apps):
    """A second listen() on the same port in one process is in error, as ever."""
    m = listening(ready, apps, [{"port": 3000}, {"port": 3000}], [("3000", tcp())])
    assert served_by(m, 2, lambda m: told(m)["pid"]) == pids(m)
    assert told(m)["server"] == 0 and told(m)["errors"] == ["EADDRINUSE"]


def test_again(ready, apps):
    """A server that is closed and listens again serves again, and the others do meanwhile."""
    m = begin(ready, apps, "deeds.js")
    victim = instances(m)[0].pid
    for n in range(1, 4):
        with contextlib.closing(tell(m, victim, "/again")) as client:
            assert client.answer().body == b"ok\n"
        m.wait_until(lambda n=n: m.stderr().count(f"again {victim}\n") == n, "another listen()")
        connection_to(m, victim).close()
    assert served_by(m, 2, lambda m: pid_of(m, "/pid")) == pids(m)


#
# What an app sees
#


def test_environment(ready, apps):
    """Instances from 0, no socket of systemd, no channel of Node's to be passed on; and nobody sends it what it has not asked for."""
    m = begin(ready, apps, "deeds.js", workers=3, environment={"NODE_ENV": "production"})
    seen = {}
    for _ in range(30):
        answer = json.loads(m.get("/pid").body)
        assert answer["heard"] == []
        assert "NODE_ENV" in answer["environment"] and "MUSTER_WORKER" in answer["environment"]
        for name in "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NODE_CHANNEL_FD", "NODE_UNIQUE_ID":
            assert name not in answer["environment"]
        seen[answer["pid"]] = answer["instance"]
    assert sorted(seen.values()) == ["0", "1", "2"]
    for instance, worker in instances(m).items():
        assert seen[worker.pid] == str(instance)


def test_status(ready, apps):
    """process.send() of what is meant for the master."""
    m = begin(ready, apps, "deeds.js", workers=1)
    assert m.get("/status").body == b"ok\n"
    m.wait_status(lambda s: "well" in s)


def test_descriptors(ready, apps):
    """An app has its channel and what Node itself makes, and no socket but what the master passed."""
    m = begin(ready, apps, "plain.js", workers=1)
    (worker,) = m.worker_processes()
    inodes = {f"socket:[{os.fstat(sock.fileno()).st_ino}]" for _, sock in m.socket_list}
    assert not inodes & set(worker.fds().values())
