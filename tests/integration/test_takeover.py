# SPDX-License-Identifier: MIT
"""A worker whose process dies, and whose connections do not: another one goes on with them."""

import contextlib
import os
import signal

import pytest
from module_harness import connected, deeds
from worker_harness import DRAINING, READY, Worker

SIZE = 3 * 1024 * 1024


@pytest.fixture
def site(tmp_path):
    (tmp_path / "index.html").write_bytes(b"hello\n")
    (tmp_path / "large").write_bytes(bytes(i * 7 % 251 for i in range(65536)) * (SIZE // 65536))
    return tmp_path


def start(site, *options, **kwargs):
    return Worker(site, *options, **kwargs)


def test_idle_connection(site):
    with start(site) as worker, contextlib.closing(worker.wait_state(READY).connect()) as client:
        assert client.request().body == b"hello\n"
        for i in range(20):
            worker.kill_serving()
            assert client.request().body == b"hello\n"
        assert worker.state == READY and worker.connections == 1
        assert worker.cell()[2:] == (1, 21)


def test_request_cut_in_two(site):
    with start(site) as worker, contextlib.closing(worker.wait_state(READY).connect()) as client:
        for _ in range(10):
            client.send(b"GET / HTTP/1.1\r\nHo")
            worker.kill_serving()
            client.send(b"st: test\r\n\r\n")
            assert client.answer().body == b"hello\n"


def test_file_cut_in_two(site):
    expected = (site / "large").read_bytes()
    with start(site) as worker, contextlib.closing(worker.wait_state(READY).connect(rcvbuf=4096)) as client:
        for _ in range(5):
            client.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n")
            for _ in range(3):
                client.fill()
                worker.kill_serving()
            assert client.answer().body == expected
            assert client.answer().body == b"hello\n"


def test_new_connections(site):
    with start(site) as worker:
        worker.wait_state(READY)
        for _ in range(10):
            clients = [worker.connect() for _ in range(5)]
            os.kill(worker.serving, signal.SIGKILL)
            for client in clients:
                assert client.request().body == b"hello\n"
                client.close()
        worker.wait_until(lambda: worker.connections == 0)


def test_many_at_once(site):
    with start(site) as worker:
        worker.wait_state(READY)
        clients = [worker.connect() for _ in range(200)]
        for client in clients:
            assert client.request().body == b"hello\n"
        worker.kill_serving()
        assert worker.connections == 200
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        os.kill(worker.serving, signal.SIGKILL)
        for client in clients:
            assert client.answer().body == b"hello\n"
            client.close()
        worker.wait_until(lambda: worker.connections == 0)


def test_nothing_is_left_open(site):
    with start(site) as worker, contextlib.closing(worker.wait_state(READY).wait_twin().connect()) as client:
        assert client.request().body == b"hello\n"
        def files():
            return sorted(os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in worker.fds())

        before = files()
        for _ in range(5):
            worker.kill_serving()
            worker.wait_twin()
            assert client.request().body == b"hello\n"
            assert files() == before


def test_retire_in_takeover(site):
    with start(site) as worker, contextlib.closing(worker.wait_state(READY).wait_twin().connect()) as client:
        assert client.request().body == b"hello\n"
        twin = worker.processes()[1]
        os.kill(twin, signal.SIGSTOP)
        os.kill(worker.serving, signal.SIGKILL)  # the keeper lets the twin go on
        worker.wait_until(lambda: worker.serving == twin)
        worker.wait_until(lambda: worker.takeovers() == 1)
        worker.kill(signal.SIGTERM)
        worker.wait_until(lambda: worker.state == DRAINING)
        answer = client.request()
        assert answer.body == b"hello\n" and answer.closes
        assert worker.wait_exit() == 0
        assert worker.state == DRAINING


def test_watchdog(site):
    """What the master sends to a worker that hangs."""
    with start(site) as worker, contextlib.closing(worker.wait_state(READY).wait_twin().connect()) as client:
        assert client.request().body == b"hello\n"
        os.kill(worker.serving, signal.SIGSTOP)
        worker.kill(signal.SIGABRT)
        assert client.request().body == b"hello\n"
        assert worker.takeovers() == 1


def test_both_die(site):
    with start(site) as worker, contextlib.closing(worker.wait_state(READY).wait_twin().connect()) as client:
        assert client.request().body == b"hello\n"
        for _ in range(10):
            worker.wait_twin()
            serving, twin = worker.processes()
            os.kill(twin, signal.SIGKILL)
            os.kill(serving, signal.SIGKILL)
            assert client.request().body == b"hello\n"


def test_keeper_dies(site):
    with start(site) as worker, contextlib.closing(worker.wait_state(READY).wait_twin().connect()) as client:
        assert client.request().body == b"hello\n"
        worker.kill(signal.SIGKILL)
        assert worker.wait_exit() == -signal.SIGKILL
        with contextlib.suppress(ConnectionResetError):
            assert client.at_end()


def test_without_twin(site):
    with start(site, "--no-twin") as worker:
        worker.wait_state(READY)
        assert worker.get().body == b"hello\n"
        assert worker.processes() == (0, 0)


@pytest.mark.parametrize("target", ["/segv", "/abort", "/thread", "/event-segv", "/offload-segv", "/exit-loop"])
def test_request_that_kills(target):
    """It is answered when it has killed three, of a signal or by an end of its own; nobody else notices."""
    with deeds() as worker, connected(worker) as client, connected(worker) as other:
        assert other.request("/").status == 200
        for _ in range(2):
            n = worker.takeovers()
            answer = client.request(target)
            assert answer.status == 500 and answer.closes
            assert worker.takeovers() == n + 3
            assert f"died of the request GET {target}, which is answered 500." in worker.stderr()
            client = worker.connect()
            assert other.request("/").status == 200
        client.close()
        assert worker.state == READY


def test_module_is_opened_afresh():
    """Over and over, with nothing left open of the one before."""
    with deeds() as worker, connected(worker) as client:
        worker.wait_twin()
        assert client.request("/").status == 200
        before = len(worker.fds())
        for _ in range(10):
            worker.kill_serving()
            worker.wait_twin()
            assert client.request("/").status == 200
            assert len(worker.fds()) == before
