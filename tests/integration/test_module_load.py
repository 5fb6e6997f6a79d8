# SPDX-License-Identifier: MIT
"""Modules that cannot be loaded or started say why, to whoever starts them too; and a reload to one is refused."""

import contextlib
import os
import signal

import pytest

from module_harness import EXAMPLES, MODULES, ModuleWorker

ERRORS = {
    "no_symbol": 'found no symbol "muster_module", expected a module',
    "other_abi": "found a module for version 77 of muster/http.h, expected version 1",
    "too_small": "found a module of 16 bytes, expected at least ",
    "no_handler": "found a module without a handler for requests, expected one",
    "undefined": "undefined symbol: muster_http_of_the_future",
}


def reload(m):
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    m.wait_ready()


def app(module, more=""):
    return f'kind = "module"; module = "{module}"; {more}'


@pytest.mark.parametrize("name", ERRORS)
def test_module_that_is_refused(name):
    with ModuleWorker(MODULES / f"{name}.so") as w:
        assert w.wait_exit() == 1
        assert ERRORS[name] in w.stderr() and f"{name}.so" in w.stderr()
        assert w.reason()[:100] in w.stderr()


def test_file_that_is_no_module(tmp_path):
    (tmp_path / "text.so").write_text("hello\n")
    for path, error in ((tmp_path / "text.so", "text.so: "), (tmp_path / "none.so", "No such file"), (tmp_path, "")):
        with ModuleWorker(path) as w:
            assert w.wait_exit() == 1
            assert error in w.reason() and str(tmp_path)[-20:] in w.reason()


def test_module_that_fails_to_start():
    with ModuleWorker(MODULES / "deeds.so", environment={"DEEDS_START": "13"}) as w:
        assert w.wait_exit() == 1
        assert w.reason() == f"The module deeds ({MODULES}/deeds.so) failed to start: Permission denied"[:191]


def test_start_that_fails_says_why(start):
    """Whoever started the service is told: the master ends, and its status has the module's words."""
    m = start(app=app(MODULES / "undefined.so"))
    m.wait_message(lambda lines: any("undefined symbol: muster_http_of_the_future" in line for line in lines))
    assert m.wait_exit() != 0


def test_environment_and_directory(ready):
    command = 'echo \\"$1 $GREETING\\"; pwd'
    more = f'environment = {{ PAGE_COMMAND = "{command}"; GREETING = "good day"; }}; directory = "/usr";'
    m = ready(app=app(EXAMPLES / "page.so", more))
    with contextlib.closing(m.connect()) as client:
        client.send(b"GET /?well HTTP/1.0\r\n\r\n")
        while client.fill():
            pass
        assert client.buffer.endswith(b"\r\n\r\nwell good day\n/usr\n")


def test_reload_to_a_broken_module_is_refused(ready):
    """The old one goes on serving."""
    m = ready(app=app(MODULES / "deeds.so"))
    m.write_config(app=app(MODULES / "other_abi.so"))
    reload(m)
    assert "found a module for version 77 of muster/http.h" in m.stderr()
    with contextlib.closing(m.connect()) as client:
        assert client.request("/").body == b"hello\n"
    old = m.worker_processes()
    m.write_config(app=app(EXAMPLES / "hello.so"))
    reload(m)
    for worker in old:
        worker.wait_end()
    with contextlib.closing(m.connect()) as client:
        assert client.request("/").body.startswith(b"Hello, 127.0.0.1")
    m.kill()
    assert m.wait_exit() == os.EX_OK
