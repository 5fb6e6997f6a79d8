# SPDX-License-Identifier: MIT
"""Sockets that systemd passed are taken over, whatever their family; what cannot be served is refused in words."""

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile

import pytest
from harness import MUSTERD, WORKER_DIR, tcp, unix
from worker_harness import DEADLINE, Client


def test_all_families_are_served(ready):
    """TCP over IPv4 and IPv6 and a unix socket, each by its name, all by one service."""
    with tempfile.TemporaryDirectory() as folder:
        m = ready(sockets=[("four", tcp()), ("six", tcp("::1")), ("local", unix(f"{folder}/s"))])
        for name in ("four", "six", "local"):
            answer = m.get(name=name)
            assert (answer.status, answer.body) == (200, b"hello\n")


def test_names_reach_the_workers(ready):
    """LISTEN_FDS, LISTEN_FDNAMES and the worker's own LISTEN_PID."""
    m = ready(sockets=[("http", tcp()), ("admin", tcp())])
    for worker in m.worker_processes():
        env = worker.environment()
        assert env["LISTEN_FDS"] == "2"
        assert env["LISTEN_FDNAMES"] == "http:admin"


def test_blocking_sockets_are_made_nonblocking(ready):
    """Workers race for connections: one that lost must not hang, whatever the unit said."""
    sock = tcp()
    sock.setblocking(True)
    m = ready(sockets=[("http", sock)])
    assert fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    assert m.get().status == 200


def test_connections_made_before_the_start_are_served(start):
    """The first client connects while there is no service: its request waits in the socket."""
    sock = tcp()
    early = socket.create_connection(sock.getsockname(), DEADLINE)
    client = Client(early)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    start(sockets=[("http", sock)])
    assert client.answer().body == b"hello\n"


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "a datagram socket (ListenDatagram=)"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), "a socket that is no stream"),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM), "a socket that does not listen"),
        (lambda: socket.socketpair()[0], "a connected socket (Accept=yes)"),
        (lambda: open("/dev/null"), "something that is no socket"),
    ],
    ids=["datagram", "seqpacket", "silent", "connected", "file"],
)
def test_unusable_descriptor(start, make, what):
    """Refused with the descriptor, its name, what it is and what was expected; in STATUS and on stderr; exit 1."""
    m = start(sockets=[("good", tcp()), ("bad", make())])
    text = f'descriptor 4 ("bad"): found {what}, expected a listening stream socket (ListenStream=, Accept=no)'
    assert m.wait_exit() == 1
    assert text in m.stderr()
    assert m.statuses() == [f"Failed to start: {text}"]


def test_no_socket_at_all(start):
    """Neither systemd's nor our own: the message says what to do."""
    m = start(sockets=[])
    assert m.wait_exit() == 1
    text = (
        f"{m.config_file}: listen: found no socket from systemd (LISTEN_FDS) and no address here, expected one: "
        'start the .socket unit, or set listen: ( { address = "8080"; } );'
    )
    assert text in m.stderr()
    assert m.statuses() == [f"Failed to start: {text}"]


def test_too_many_sockets(start):
    """There is a limit, and beyond it a clear word."""
    sock = tcp()
    m = start(sockets=[("x", sock)] * 513)
    assert m.wait_exit() == 1
    assert "LISTEN_FDS: found too many sockets, expected at most 512" in m.stderr()


def test_many_sockets(ready):
    """Hundreds of them are served."""
    first, last = tcp(), tcp()
    m = ready(sockets=[("first", first)] + [("x", tcp()) for _ in range(300)] + [("last", last)], workers=1)
    assert m.get(name="first").status == 200
    assert m.get(name="last").status == 200


def test_malformed_variables(start):
    """More names than sockets: refused, not guessed."""
    m = start(sockets=[("a", tcp())], environment={"LISTEN_FDNAMES": "a:b"})
    assert m.wait_exit() == 1
    assert "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES: cannot take over the sockets: Invalid argument" in m.stderr()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="no systemd-socket-activate")
def test_real_socket_activate(tmp_path):
    """The same behind systemd's own tool, which starts musterd at the first connection."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        (tmp_path / "index.html").write_text("hello\n")
        config = tmp_path / "web.conf"
        config.write_text(f'app: {{ directory = "{tmp_path}"; whoami = true; }};\nworkers: {{ count = 2; }};\n')
        process = subprocess.Popen(
            ["systemd-socket-activate", "-l", path, "--fdname=http", f"--setenv=MUSTER_LIBEXECDIR={WORKER_DIR}",
             MUSTERD, config],
            stderr=subprocess.PIPE,
        )
        try:
            # it says so when it listens
            while b"Listening on" not in process.stderr.readline():
                assert process.poll() is None
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(DEADLINE)
            sock.connect(path)
            assert Client(sock).request("/").body == b"hello\n"
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            if process.poll() is None:
                process.kill()
            process.stderr.close()
            process.wait()
