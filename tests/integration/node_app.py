# SPDX-License-Identifier: MIT
"""Node apps under a Master of the harness: unmodified programs of node/apps, which a test starts by name.

    m = begin(ready, apps, "express.js")
    assert served_by(m, 2)                 # both workers have answered

What an app waits for is a gate, which tells the test who waits there and lets one after the other go on:

    with Gate(tmp_path) as gate:
        m = begin(ready, apps, "deeds.js", environment=gate.environment)
        client = ask(m, "/slow")
        pid, go_on = gate.wait()
        go_on()
"""

import contextlib
import json
import pathlib
import select
import subprocess

from harness import DEADLINE, unix, wait_readable

HERE = pathlib.Path(__file__).parent
APPS = HERE / "node/apps"
NODE = "/usr/bin/node"


def node_app(*command, environment=None):
    """The group of a Node app in the configuration: what libconfig takes for a string is JSON's."""
    words = ", ".join(json.dumps(str(word)) for word in command)
    names = " ".join(f"{name} = {json.dumps(str(value))};" for name, value in (environment or {}).items())
    return f'kind = "node"; command = [ {words} ]; environment = {{ {names} }};'


def begin(start, apps, name, config="", node=NODE, environment=None, **kwargs):
    """A musterd (by one of the two fixtures) with that app."""
    return start(config, app=node_app(node, apps / name, environment=environment), **kwargs)


def workers(settings="", count=2):
    return f'workers: {{ count = {count}; soak = "20ms"; start_timeout = "1min"; {settings} }};\n'


def pid_of(m, target="/", name=None):
    """Of the worker that answers a new connection."""
    answer = m.get(target, name)
    assert answer.status == 200
    return json.loads(answer.body)["pid"]


def served_by(m, n, question=pid_of):
    """The pids of n workers, each of which has answered, as soon as it was there to answer."""
    seen = set()

    def ask():
        seen.add(question(m))
        return len(seen) == n

    m.wait_until(ask, f"an answer of {n} workers")
    return seen


def ask(m, target, name=None):
    """A new connection with a request on it, whose answer is not waited for."""
    client = m.connect(name)
    client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def connection_to(m, pid, target="/pid"):
    """One that this worker has accepted, and kept."""
    def connect():
        client = m.connect()
        if json.loads(client.request(target).body)["pid"] == pid:
            return client
        client.close()
        return None

    return m.wait_until(connect, f"a connection to worker {pid}")


def tell(m, pid, target):
    """That worker is asked for something; the client is returned, and no answer was waited for."""
    client = connection_to(m, pid)
    client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def instances(m):
    """NODE_APP_INSTANCE to the process, of the workers there are."""
    found = {}
    for worker in m.worker_processes():
        with contextlib.suppress(OSError, KeyError):  # it has just gone, or is not executed yet
            found[int(worker.environment()["NODE_APP_INSTANCE"])] = worker
    return found


def block(m, pid):
    """Its event loop stands still, for ever."""
    client = tell(m, pid, "/block")
    m.wait_until(lambda: f"blocked {pid}\n" in m.stderr(), "the end of its event loop")
    return client


def wait_accepted(m, sock=None):
    """Until no connection waits in the queue of its socket: the master has taken all, whoever they will be for."""
    port = (sock or m.socket_list[0][1]).getsockname()[1]

    def waiting():
        for table in "tcp", "tcp6":
            for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    return int(fields[4].split(":")[1], 16)
        raise AssertionError(f"nobody listens on {port}")

    m.wait_until(lambda: waiting() == 0, "an empty queue")


class Gate:
    """Where apps wait until the test lets them go on."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / "gate"
        self.sock = unix(self.path)
        self.environment = {"GATE": str(self.path)}
        self.waiting = []

    def wait(self, what="slow"):
        """The pid of the next one that waits, and a function that lets it go on."""
        wait_readable([self.sock], f"one at the gate for {what}")
        waiting, _ = self.sock.accept()
        waiting.settimeout(DEADLINE)
        self.waiting.append(waiting)
        line = b""
        while not line.endswith(b"\n"):
            line += waiting.recv(100) or b"?\n"
        said, pid = line.decode().split()
        assert said == what
        return int(pid), waiting.close

    def nobody(self):
        return not select.select([self.sock], [], [], 0)[0]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for sock in (self.sock, *self.waiting):
            sock.close()


def finish(client, body=b"slow\n"):
    """Its answer, after which it hangs up: Node waits for kept connections that were busy when it was told to go."""
    with contextlib.closing(client):
        assert client.answer().body == body


def run_client(apps, script, *arguments, node=NODE):
    """A client that is a Node program itself, for what is spoken by a library of npm. Returns its lines, from JSON."""
    r = subprocess.run([node, apps / script, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=2 * DEADLINE)
    assert r.returncode == 0, r.stdout + r.stderr
    return [json.loads(line) for line in r.stdout.splitlines()]
