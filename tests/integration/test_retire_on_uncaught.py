# SPDX-License-Identifier: MIT
"""retire-on-uncaught.js in an app that knows nothing of it, with Node's own primary as the master, in every version that is
looked after. The app is node/retire_app.js, where it says what it can be asked for."""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import time

import pytest

from harness import wait_readable
from test_node_channel import node, programs  # noqa: F401 (fixtures)
from worker_harness import DEADLINE, Client

HERE = pathlib.Path(__file__).parent
PRELOADED = HERE.parents[1] / "src/node/retire-on-uncaught.js"
PRIMARY, APP = HERE / "node/retire_primary.js", HERE / "node/retire_app.js"
ENVIRONMENT = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG")}

# In which an exception comes to be in the app, with the request to be found.
WAYS = """sync timer interval immediate tick microtask rejection rejected_later awaited read read_awaited thread_pool child client data
    end iterated once error_event bound other_context other_answer""".split()


class App:
    """The app under Node's primary. Nothing is left of it after close()."""

    def __init__(self, program, **environment):
        self.process = subprocess.Popen([program, PRIMARY, PRELOADED, APP], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env={**ENVIRONMENT, **environment})
        self.buffer, self.clients = b"", []
        self.port = self.event("listening")

    def next(self):
        while b"\n" not in self.buffer:
            wait_readable([self.process.stdout], f"an event after {self.buffer!r}")
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, self.process.stderr.read().decode()
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def event(self, wanted):
        """The value of the next event, which is that one."""
        event, value = self.next()
        assert event == wanted, (event, value)
        return value

    def tell(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def wait_heard(self):
        """Until the app has heard all that it was told; it can still answer."""
        self.tell("pid")
        assert isinstance(self.event("message"), int)

    def connect(self):
        self.clients.append(Client(socket.create_connection(("127.0.0.1", self.port), DEADLINE)))
        return self.clients[-1]

    def begin(self, target):
        """A client whose request has arrived, and is not answered."""
        client = self.connect()
        client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert self.event("message") == target[1:]
        return client

    def throw(self, name):
        client = self.connect()
        return client.request(f"/{name}", "POST", headers=["Content-Length: 3"], body=b"abc")

    def wait_exit(self):
        """The status; nothing comes before it."""
        status = self.event("exit")
        self.process.stdin.close()
        assert self.process.wait(DEADLINE) == 0
        return status

    def stderr(self):
        return self.process.stderr.read().decode()

    def close(self):
        for client in self.clients:
            client.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(DEADLINE)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def app(node):  # noqa: F811
    with contextlib.ExitStack() as stack:

        def start_app(**environment):
            started = App(node, **environment)
            stack.callback(started.close)
            return started

        yield start_app


def suicide(reason):
    return {"act": "suicide", "reason": reason}


def assert_sorry(answer):
    assert (answer.status, answer.body, answer.closes) == (500, b"Internal Server Error\n", True)
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("way", WAYS)
def test_request(app, way):
    """Wherever in a request: the master hears of it first, that request is answered with 500, and the one that was open before is
    finished, even after the master has said "disconnect"; then the process ends with status 1."""
    a = app()
    slow = a.begin("/slow")
    assert_sorry(a.throw(way))
    if way == "client":  # which asks its own app first
        assert a.event("message") == ""
    assert a.event("message") == suicide(way)
    a.tell("disconnect")
    a.wait_heard()
    a.tell("release")
    answer = slow.answer()
    assert (answer.status, answer.body, answer.closes) == (200, b"hello\n", True)
    assert a.wait_exit() == 1
    err = a.stderr()
    assert re.search(rf"^Error: {way}\n    at ", err, re.M) and re.search(r"\n\nNode\.js v\d+\.", err)
    assert err.count("Node.js v") == 1


@pytest.mark.parametrize(
    "way, reason, text",
    [
        ("nothing", "undefined", "Uncaught undefined\n"),
        ("text", "text", "Uncaught 'text\\nof two lines'\n"),
        ("silent", "Error", "Error\n    at "),
        ("bare", "[Object: null prototype] {}", "Uncaught [Object: null prototype] {}\n"),
        ("long", "x" * 150, f"Error: {'x' * 1000}\n"),
    ],
)
def test_reason(app, way, reason, text):
    """Anything can be thrown. The reason is one line, and not a long one."""
    a = app()
    assert_sorry(a.throw(way))
    assert a.event("message") == suicide(reason)
    assert a.wait_exit() == 1
    assert text in a.stderr()


def test_hostile(app):
    """What throws when it is looked at ends the process."""
    a = app()
    client = a.connect()
    client.send(b"GET /hostile HTTP/1.1\r\nHost: x\r\n\r\n")
    assert a.wait_exit() == 1
    assert client.at_end()


def test_no_request(app):
    """Without one there is nobody to answer and nothing to wait for."""
    a = app()
    a.tell("throw")
    assert a.event("message") == suicide("throw")
    assert a.wait_exit() == 1


def test_others_request(app):
    """An exception that belongs to none leaves all requests alone; those that have begun their answer finish it."""
    a = app()
    clients = [a.begin("/slow"), a.begin("/begun")]
    a.tell("throw")
    assert a.event("message") == suicide("throw")
    a.tell("release")
    assert clients[0].answer().body == b"hello\n"
    while clients[1].fill():
        pass
    assert clients[1].buffer.endswith(b"\r\n\r\n7\r\na part\n\r\n9\r\nthe rest\n\r\n0\r\n\r\n")
    assert a.wait_exit() == 1


def test_begun_answer(app):
    """An answer that has begun cannot become a 500: the client is not left to believe that it was all."""
    a = app()
    client = a.connect()
    client.send(b"GET /begun_and_thrown HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        while client.fill():
            pass
    assert client.buffer.endswith(b"\r\n\r\n7\r\na part\n\r\n")
    assert a.event("message") == "begun_and_thrown"
    assert a.event("message") == suicide("begun_and_thrown")
    assert a.wait_exit() == 1


def test_another_exception(app):
    """While it is leaving: its request is answered as well, and that is all."""
    a = app()
    late = a.connect()
    late.send(b"GET /timer HTTP/1.1\r\nHost: ")
    slow = a.begin("/slow")  # when that has arrived, so has what came before
    assert_sorry(a.throw("sync"))
    assert a.event("message") == suicide("sync")
    late.send(b"x\r\n\r\n")
    assert_sorry(late.answer())
    a.tell("release")
    assert slow.answer().status == 200
    assert a.wait_exit() == 1
    assert "Error: timer\n" in a.stderr()


def test_nothing_new(app):
    """Its listeners are closed at once, which Node's primary follows by closing the socket; a request that was already arriving is
    answered, and is the last one of its connection."""
    a = app()
    arriving = a.connect()
    arriving.send(b"GET / HTTP/1.1\r\nHost: ")
    slow = a.begin("/slow")  # when that has arrived, so has what came before
    a.tell("throw")
    assert a.event("message") == suicide("throw")
    end = time.monotonic() + DEADLINE
    with pytest.raises(ConnectionError):
        while time.monotonic() < end:  # until it has heard of it
            socket.create_connection(("127.0.0.1", a.port), DEADLINE).close()
    arriving.send(b"x\r\n\r\n")
    answer = arriving.answer()
    assert (answer.status, answer.closes) == (200, True)
    assert a.event("message") == ""
    a.tell("release")
    assert slow.answer().status == 200
    assert a.wait_exit() == 1


def test_idle_connections(app):
    """They do not hold it, whether they had a request, none, or a part of one that does not go on."""
    a = app()
    kept, unused, stuck = a.connect(), a.connect(), a.connect()
    assert kept.request("/").status == 200
    assert a.event("message") == ""
    stuck.send(b"GET / HT")
    assert_sorry(a.throw("timer"))
    assert a.event("message") == suicide("timer")
    assert a.wait_exit() == 1
    assert kept.at_end() and unused.at_end()


def test_no_request_yet(app):
    """Nor does a connection that is all that there ever was."""
    a = app()
    unused = a.connect()
    a.wait_heard()
    a.tell("throw")
    assert a.event("message") == suicide("throw")
    assert a.wait_exit() == 1
    with contextlib.suppress(ConnectionResetError):  # when it had not even been accepted
        assert unused.at_end()


@pytest.mark.parametrize("handler", ["early", "once", "first", "late", "monitor", "captured"])
def test_own_handler(app, handler):
    """An app that handles its exceptions goes on as it does without us."""
    a = app(HANDLER=handler)
    a.tell("throw")
    assert a.event("message") == "handled throw"
    a.wait_heard()
    assert a.connect().request("/").status == 200


def test_own_handler_of_rejections(app):
    """Likewise for those alone; but not an exception."""
    a = app(HANDLER="rejection")
    client = a.connect()
    client.send(b"GET /rejection HTTP/1.1\r\nHost: x\r\n\r\n")
    assert a.event("message") == "handled rejection"
    a.tell("throw")
    assert a.event("message") == suicide("throw")
    client.close()
    assert a.wait_exit() == 1


# What a process is that we are not for: no listener of ours, Node's own functions, Node's own end.
BYSTANDER = """
const { AsyncResource } = require('async_hooks');
console.log(process.listenerCount('uncaughtExceptionMonitor'), AsyncResource.prototype.runInAsyncScope.name);
setTimeout(() => { throw new Error('x'); });
"""


@pytest.mark.parametrize("start", ["alone", "with a channel"])
def test_no_worker(node, tmp_path, start):  # noqa: F811
    """Anything but a cluster worker that has it from NODE_OPTIONS is as it would be without."""
    script = tmp_path / "script.js"
    script.write_text(BYSTANDER)
    program = [node, script] if start == "alone" else [
        node, "-e", "require('child_process').fork(process.argv[1]).on('exit', (status) => process.exit(status))", script]
    r = subprocess.run(program, env={**ENVIRONMENT, "NODE_OPTIONS": f"--require={PRELOADED}"}, capture_output=True, text=True,
                       timeout=DEADLINE)
    assert (r.returncode, r.stdout) == (1, "0 runInAsyncScope\n")
    assert "throw new Error('x')" in r.stderr  # the line of the source, which only Node knows


def test_thread(node, tmp_path):  # noqa: F811
    """Nor is it for the threads of a worker, whose exceptions are told to who has started them."""
    thread, script = tmp_path / "thread.js", tmp_path / "script.js"
    thread.write_text(BYSTANDER)
    script.write_text(f"""
        const cluster = require('cluster');
        const {{ Worker }} = require('worker_threads');
        if (cluster.isPrimary)
                cluster.fork().on('exit', (status) => process.exit(status));
        else
                new Worker({str(thread)!r}).on('error', (error) => {{ console.log(error.message); process.exit(3); }});
    """)
    r = subprocess.run([node, script], env={**ENVIRONMENT, "NODE_OPTIONS": f"--require={PRELOADED}"}, capture_output=True,
                       text=True, timeout=DEADLINE)
    assert (r.returncode, r.stdout) == (3, "0 runInAsyncScope\nx\n")
