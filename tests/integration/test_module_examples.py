# SPDX-License-Identifier: MIT
"""The examples, as their users meet them: with curl, under a real musterd."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

from harness import BUILD_DIR
from module_harness import EXAMPLES, connected, example, send_request

SOURCES = pathlib.Path(__file__).resolve().parents[2] / "packaging/examples"
PLUGINS = (BUILD_DIR / "src/state").resolve()
pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")


def master(fixture, name, more="", workers=1, rest=""):
    return fixture(rest, app=f'kind = "module"; module = "{EXAMPLES}/{name}.so"; {more}', workers=workers)


def curl(m, path, *options):
    """The status, and the body."""
    host, port = m.socket_list[0][1].getsockname()[:2]
    output = subprocess.run(["curl", "-sS", "-w", "\n%{http_code}", *options, f"http://{host}:{port}{path}"],
                            capture_output=True, text=True, check=True, timeout=60).stdout
    body, _, status = output.rpartition("\n")
    return int(status), body


def test_they_are_short():
    for name in ("hello.c", "json-api.c", "orders.c", "page.c"):
        assert len((SOURCES / name).read_text().splitlines()) < 80


def test_hello(ready):
    m = master(ready, "hello")
    assert curl(m, "/") == (200, "Hello, 127.0.0.1: this is request 1 of this worker.\n")
    status, head = curl(m, "/", "-I")
    assert status == 200 and "Content-Length: 52" in head
    assert curl(m, "/", "-d", "x")[0] == 405


def test_json_api(ready):
    m = master(ready, "json-api")
    assert curl(m, "/sum", "-d", "[1, 2.5]") == (200, '{"sum":3.5,"count":2}')
    assert json.loads(curl(m, "/sum")[1]) == {"sum": 3.5, "count": 2}
    status, body = curl(m, "/sum", "-d", "[1,\n2")
    assert status == 400 and json.loads(body)["line"] == 2
    assert curl(m, "/sum", "-d", "{}")[0] == 400
    assert curl(m, "/else")[0] == 404
    assert curl(m, "/sum", "-X", "DELETE")[0] == 405
    assert curl(m, "/sum", "-H", "Transfer-Encoding: chunked", "-d", "[3]") == (200, '{"sum":3.0,"count":1}')


def test_orders(ready, tmp_path):
    m = master(ready, "orders", f'environment = {{ ORDERS_FOLDER = "{tmp_path}"; }};')
    status, name = curl(m, "/", "-d", "a loaf of bread")
    assert status == 201 and (tmp_path / name.strip()).read_text() == "a loaf of bread"
    assert curl(m, "/", "-d", "a loaf of bread")[1] != name
    assert len(list(tmp_path.iterdir())) == 2
    assert curl(m, "/")[0] == 405


def test_orders_need_their_folder(start):
    m = master(start, "orders")
    m.wait_message(lambda lines: any("failed to start: Required key not available" in line for line in lines))
    assert m.wait_exit() != 0


def test_nightly(ready, tmp_path):
    """One of the workers does the job; when it is killed another one does, with a higher number."""
    m = master(ready, "nightly", f'environment = {{ MUSTER_PLUGINDIR = "{PLUGINS}"; NIGHTLY_LEASE_SECONDS = "2"; }};', workers=2,
               rest=f'state: {{ url = "lmdb:{tmp_path}/state"; }};')
    done = []

    def look():
        """At who has done it last: fence, pid."""
        found = re.search(r"last: (\d+) pid (\d+)", curl(m, "/")[1])
        if found and (not done or done[-1] != tuple(map(int, found.groups()))):
            done.append(tuple(map(int, found.groups())))
        return done

    m.wait_until(look, "somebody does the job")
    os.kill(done[-1][1], signal.SIGKILL)
    m.wait_until(lambda: len(look()) == 2, "another one does it")
    assert done[1][0] > done[0][0] and done[1][1] != done[0][1]


def test_page(ready):
    m = master(ready, "page", 'environment = { PAGE_COMMAND = "echo \\"<p>$1\\"; seq 200000"; };')
    status, body = curl(m, "/?a=b")
    assert status == 200 and body == "<p>a=b\n" + "".join(f"{i}\n" for i in range(1, 200001))
    assert curl(m, "/", "-0")[1].startswith("<p>\n1\n")


def children(worker):
    return pathlib.Path(f"/proc/{worker.serving}/task/{worker.serving}/children").read_text().split()


def test_page_of_a_slow_reader():
    """The program waits; the worker does not grow. When the client leaves, the program ends."""
    with example("page", environment={"PAGE_COMMAND": "yes"}) as w, contextlib.ExitStack() as stack:
        client = stack.enter_context(connected(w, rcvbuf=65536))
        send_request(client, "/")
        client.fill()
        assert re.search(rb"text/html", client.buffer)
        w.wait_until(lambda: w.switches() and children(w))
        w.wait_asleep()
        before = w.rss()
        for _ in range(20):
            client.fill()
        assert w.rss() - before < 4096
        assert len(children(w)) == 1
        client.reset()
        w.wait_until(lambda: not children(w))
        with connected(w) as other:
            send_request(other, "/")
            other.fill()
            w.wait_until(lambda: len(children(w)) == 1)
        w.wait_until(lambda: not children(w))


def test_page_needs_its_command(start):
    m = master(start, "page")
    m.wait_message(lambda lines: any("failed to start: Required key not available" in line for line in lines))
    assert m.wait_exit() != 0
