# SPDX-License-Identifier: MIT
"""A module's workers are native ones to the master: it has them counted, limited and watched as those that serve files; and a reload
leads from one kind to the other."""

import contextlib
import json
import signal

from harness import tcp, unix
from lifecycle import wait_said
from worker_harness import BUILD_DIR

HELLO = (BUILD_DIR / "packaging/examples/hello.so").resolve()
MODULE = f'kind = "module"; module = "{HELLO}";'


def workers(text, count=1):
    return f'workers: {{ count = {count}; start_timeout = "1min"; soak = "1ms"; {text} }};\n'


def reload(m):
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    return m.wait_ready()


def test_from_files_to_a_module_and_back(ready):
    """Each generation is of its kind, and the sockets stay."""
    m = ready()
    assert m.get().body == b"hello\n"
    m.write_config(app=MODULE)
    assert reload(m) == "READY=1\nSTATUS=2/2 workers ready, 0 connections, generation 2"
    m.wait_until(lambda: m.get().body.startswith(b"Hello, 127.0.0.1: "), "the module answers")
    m.app = None
    m.write_config()
    reload(m)
    m.wait_until(lambda: b'"generation":3' in m.get("/whoami").body, "files again")
    m.wait_until(lambda: m.get().body == b"hello\n", "and nothing else")


def test_module_that_is_missing(ready):
    """It is refused before a worker is started for it."""
    m = ready(app=MODULE)
    pids = {w.pid for w in m.worker_processes()}
    m.write_config(app='kind = "module"; module = "/nonexistent.so";')
    said = reload(m)
    assert said.endswith(f"reload failed: {m.config_file}:1: app.module: cannot open /nonexistent.so: No such file or directory"), said
    assert {w.pid for w in m.worker_processes()} == pids
    assert m.get().status == 200


def test_connections_are_counted(ready):
    """On the board, and so in the status."""
    m = ready(app=MODULE)
    with contextlib.closing(m.connect()) as client:
        assert client.request("/").status == 200
        m.wait_connections(1)
        m.wait_status("2/2 workers ready, 1 connections, generation 1")
    m.wait_connections(0)


def test_max_requests(ready):
    """A worker that has answered that many is replaced, when the next one is there."""
    m = ready(workers("max_requests = 20; jitter = 0;"), app=MODULE)
    (worker,) = m.worker_processes()
    said = f"Worker 1 (pid {worker.pid}) is to be replaced: it has answered workers.max_requests."
    while said not in m.stderr():
        assert m.get().status == 200
    wait_said(m, f"Worker 1 (pid {worker.pid}) exited with status 0.")
    assert m.get().status == 200


def test_watchdog(ready):
    """One that hangs is replaced."""
    m = ready(workers('watchdog = "1s";'), app=MODULE)
    (worker,) = m.worker_processes()
    assert m.get().status == 200
    hung = m.serving(worker)
    hung.kill(signal.SIGSTOP)
    hung.wait_end()
    assert m.get().status == 200


def test_idle_exit(ready):
    """Nobody connects, and the service ends."""
    m = ready(workers("") + 'idle_exit = "1s";\n', sockets=[("http", tcp())], app=MODULE)
    assert m.wait_exit() == 0


def test_proxy_protocol(ready):
    """The module sees the client that the proxy names."""
    m = ready(workers("proxy_protocol = true;"), app=MODULE)
    with contextlib.closing(m.connect()) as client:
        client.send(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n")
        assert client.request("/").body.startswith(b"Hello, 192.0.2.7: ")


def test_control(ready, tmp_path):
    """The control socket tells of such workers what it tells of others of ours."""
    m = ready(workers(""), sockets=[("http", tcp()), ("control", unix(tmp_path / "control"))], app=MODULE)
    assert m.get().status == 200
    status = json.loads(m.get("/v1/status", name="control").body)
    assert status["requests"] == 1 and status["processes"][0]["requests"] == 1
