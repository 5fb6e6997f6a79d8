# SPDX-License-Identifier: MIT
"""Without systemd's sockets musterd binds those of the configuration."""

import json
import os
import socket
import tempfile

import pytest
from harness import tcp, unix
from worker_harness import DEADLINE, Client


def bound_ports(master):
    """The ports of the sockets in the master, asked of one of its workers."""
    worker = master.worker_processes()[0]
    ports = []
    for protocol in ("tcp", "tcp6"):
        with open(f"/proc/net/{protocol}") as f:
            by_inode = {line.split()[9]: line.split()[1] for line in f.readlines()[1:]}
        for fd, target in sorted(worker.fds().items()):
            inode = target.removeprefix("socket:[").removesuffix("]")
            if inode in by_inode:
                ports.append(int(by_inode[inode].rsplit(":", 1)[1], 16))
    return ports


def get(family, address):
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(DEADLINE)
    sock.connect(address)
    try:
        return Client(sock).request("/").body
    finally:
        sock.close()


def test_every_form_of_address(ready):
    """A port alone is IPv6 and IPv4; one family; a path, which goes away with the service."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        m = ready(
            f'listen: ( {{ address = "127.0.0.1:0"; name = "four"; }}, {{ address = "[::1]:0"; }},\n'
            f'          {{ address = "0"; }}, {{ address = "{path}"; }} );\n',
            sockets=[],
        )
        four, six, both = bound_ports(m)
        assert get(socket.AF_INET, ("127.0.0.1", four)) == b"hello\n"
        assert get(socket.AF_INET6, ("::1", six)) == b"hello\n"
        assert get(socket.AF_INET6, ("::1", both)) == b"hello\n"
        assert get(socket.AF_INET, ("127.0.0.1", both)) == b"hello\n"
        assert get(socket.AF_UNIX, path) == b"hello\n"
        assert m.worker_processes()[0].environment()["LISTEN_FDNAMES"] == "four:http:http:http"
        m.kill()
        assert m.wait_exit() == 0
        assert not os.path.exists(path)


def test_busy_port(start):
    """The message names file, line, the address and who asked for it."""
    busy = tcp()
    port = busy.getsockname()[1]
    m = start(f'\n\nlisten: ( {{ address = "127.0.0.1:{port}"; name = "front"; }} );\n', sockets=[])
    line = m.config_file.read_text().split("listen:")[0].count("\n") + 1
    text = f'{m.config_file}:{line}: listen.address: cannot listen on "127.0.0.1:{port}" for "front": Address already in use'
    assert m.wait_exit() == 1
    assert text in m.stderr()
    assert m.statuses() == [f"Failed to start: {text}"]
    busy.close()


def test_path_of_a_killed_service_is_taken_over(ready):
    """A socket file that a SIGKILL left behind is no obstacle, and one that is in use is not taken away."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        unix(path).close()
        m = ready(f'listen: ( {{ address = "{path}"; }} );\n', sockets=[])
        assert get(socket.AF_UNIX, path) == b"hello\n"
        assert m.status is None


def test_path_in_use(start, ready):
    """Two services with the same path: the second says so, the first goes on."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        ready(f'listen: ( {{ address = "{path}"; }} );\n', sockets=[])
        second = start(f'listen: ( {{ address = "{path}"; }} );\n', sockets=[])
        assert second.wait_exit() == 1
        assert f'cannot listen on "{path}" for "http": Address already in use' in second.stderr()
        assert get(socket.AF_UNIX, path) == b"hello\n"


def test_systemds_sockets_come_first(ready):
    """With sockets from systemd those of the configuration are not bound."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        m = ready(f'listen: ( {{ address = "{path}"; }} );\n')
        assert not os.path.exists(path)
        assert m.get().status == 200


@pytest.mark.parametrize("address", ["localhost:80", "70000", "x", ""])
def test_address_that_is_none(start, address):
    """Refused as every other wrong value: with file, line and key, and exit 2, by --check too."""
    for arguments in ((), ("--check",)):
        m = start(f'listen: ( {{ address = "{address}"; }} );\n', sockets=[], arguments=arguments)
        assert m.wait_exit() == 2
        assert f'listen.address: found {json.dumps(address)}, expected PORT, IPV4:PORT, [IPV6]:PORT or /PATH' in m.stderr()
