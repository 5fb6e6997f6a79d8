# SPDX-License-Identifier: MIT
"""The control socket: what muster(1) and any other client of HTTP see and may do, and what they cannot break."""

import contextlib
import json
import os
import pathlib
import pty
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import pytest
from harness import MUSTER, tcp, unix
from lifecycle import begin, connected, tell
from worker_harness import DEADLINE, Client

TOP = pathlib.Path(__file__).resolve().parents[2]
JSON = "Content-Type: application/json"


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as path:  # a short one, for sockets
        yield pathlib.Path(path)


@pytest.fixture
def controlled(ready, folder):
    """A function that starts a master with a control socket, which is ready when the function returns."""

    def start_controlled(*args, **kwargs):
        m = ready(*args, sockets=[("http", tcp()), ("control", unix(folder / "control"))], **kwargs)
        m.control_path = folder / "control"
        if kwargs.get("worker") is LATE_WORKER:
            os.mkfifo(m.dir / "libexec/go")
        return m

    return start_controlled


def run(*arguments, **kwargs):
    kwargs.setdefault("timeout", DEADLINE)
    return subprocess.run([str(MUSTER), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def muster(m, *arguments, **kwargs):
    return run(f"--socket={m.control_path}", *arguments, **kwargs)


def ask(m, target, method="GET", headers=(), body=b""):
    with contextlib.closing(m.connect("control")) as client:
        return client.request(target, method, headers=["Connection: close", *headers], body=body)


def post(m, target, body=None, headers=()):
    if body is None:
        return ask(m, target, "POST", headers)
    data = json.dumps(body).encode() if not isinstance(body, bytes) else body
    return ask(m, target, "POST", [*headers, f"Content-Length: {len(data)}"], data)


def error_of(answer):
    assert answer.headers["content-type"] == "application/json"
    error = json.loads(answer.body)["error"]
    assert set(error) == {"code", "message"}
    return error


def status_of(m):
    return json.loads(ask(m, "/v1/status").body)


# A new generation of it stands at a FIFO until let_go().
LATE_WORKER = """
import os
if os.environ["MUSTER_GENERATION"] != "1":
    open(os.path.dirname(sys.argv[0]) + "/go").close()
os.execv(REAL, sys.argv)
"""


def let_go(m):
    """The one that stands there, when it does, gets ready; so do those that come later, as there is a file by then."""
    path, file = m.dir / "libexec/go", m.dir / "libexec/gone"
    file.touch()
    with open(path, "w"):
        file.rename(path)


def wait_reloading(m):
    m.wait_message(lambda lines: "RELOADING=1" in lines)


#
# What it shows and does
#


def test_nothing_runs_unasked(controlled):
    """Without a client there is no muster-admin, and the workers know nothing of the socket."""
    m = controlled()
    assert m.admin_process() is None
    for worker in m.worker_processes():
        assert worker.environment()["LISTEN_FDNAMES"] == "http"
        assert worker.environment()["LISTEN_FDS"] == "1"
    assert ask(m, "/v1/status").status == 200
    assert m.admin_process().environment()["LISTEN_FDNAMES"] == "control"
    assert len(m.worker_processes()) == 2


def test_status(controlled):
    """muster status: a head, and a line for each worker."""
    m = controlled(workers=2)
    r = muster(m, "status", "web")
    assert (r.returncode, r.stderr) == (0, "")
    lines = r.stdout.splitlines()
    assert lines[0].startswith("web: running, generation 1, for ") and f"(pid {m.pid}, muster 0." in lines[0]
    assert lines[1] == "      workers: 2/2 ready"
    assert lines[2].startswith("  connections: 0 open, ")
    assert lines[3] == f"configuration: {m.config_file}"
    assert lines[5].split() == ["SLOT", "PID", "WORKER", "TWIN", "STATE", "GEN", "UPTIME", "CONN", "REQUESTS", "TAKEOVERS", "MEMORY", "CPU", "STATUS"]
    rows = [line.split() for line in lines[6:]]
    assert [row[0] for row in rows] == ["1", "2"]
    assert {int(row[1]) for row in rows} == {w.pid for w in m.worker_processes()}
    assert [row[4:6] for row in rows] == [["ready", "1"]] * 2


def test_json(controlled):
    """--json is the body as it came."""
    m = controlled()
    r = muster(m, "--json", "status")
    assert r.returncode == 0
    status = json.loads(r.stdout)
    assert status["app"] == "web" and status["workers"] == {"wanted": 2, "ready": 2, "failing": 0}
    assert r.stdout.count("\n") == 1
    for name in ("exits", "web"), ("reload", "web"), ("scale", "web", "2"), ("send", "web", "{}"):
        r = muster(m, "--json", *name)
        assert (r.returncode, r.stderr) == (0, ""), r
        json.loads(r.stdout)


def test_terminal(controlled):
    """Colours and indentation on a terminal; none of the former with NO_COLOR or TERM=dumb."""
    m = controlled(workers=1)

    def on_terminal(*arguments, **environment):
        ours, theirs = pty.openpty()
        process = subprocess.Popen([MUSTER, f"--socket={m.control_path}", *arguments], stdout=theirs,
                                   env={"TERM": "xterm", **environment})
        os.close(theirs)
        out = b""
        with contextlib.suppress(OSError):  # EIO is its end
            while data := os.read(ours, 65536):
                out += data
        os.close(ours)
        assert process.wait(DEADLINE) == 0
        return out.decode()

    assert "\033[32mrunning\033[0m" in on_terminal("status")
    assert "\033" not in on_terminal("status", NO_COLOR="1")
    assert "\033" not in on_terminal("status", TERM="dumb")
    assert '\r\n  "app": "web",' in on_terminal("status", "--json")


def test_exits(controlled):
    """A table, with its titles at least."""
    m = controlled()
    r = muster(m, "exits", "web")
    assert (r.returncode, r.stderr) == (0, "")
    assert r.stdout.split("\n")[0].split() == ["TIME", "SLOT", "PID", "GEN", "CAUSE", "UPTIME", "PEAK", "CPU", "REASON"]


def test_reload(controlled):
    """Returns when the new generation serves, and says so."""
    m = controlled()
    old = {w.pid for w in m.worker_processes()}
    r = muster(m, "reload", "web")
    assert (r.returncode, r.stdout, r.stderr) == (0, "web: generation 2 serves with 2 workers\n", "")
    status = status_of(m)
    assert status["generation"] == 2
    assert not old & {p["pid"] for p in status["processes"] if p["state"] == "ready"}


def test_bad_reload(controlled):
    """Fails with the reason, and the old generation goes on."""
    m = controlled()
    old = {w.pid for w in m.worker_processes()}
    m.write_config("workers: { count = 0; };")
    r = muster(m, "reload", "web")
    assert (r.returncode, r.stdout) == (1, "")
    assert r.stderr.startswith("muster: web: ") and 'workers.count: found 0, expected "auto"' in r.stderr
    answer = post(m, "/v1/reload")
    assert answer.status == 422 and error_of(answer)["code"] == "failed"
    status = status_of(m)
    assert status["generation"] == 1 and {p["pid"] for p in status["processes"]} == old
    assert "      failure: " in muster(m, "status").stdout
    m.write_config()
    assert post(m, "/v1/reload").status == 200


def test_reload_takes_its_time(controlled):
    """The command waits as long as the reload does; those that come meanwhile wait for the one after it, which reads the
    file as it is then."""
    m = controlled(workers=1, worker=LATE_WORKER)
    command = [MUSTER, f"--socket={m.control_path}", "reload", "web"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_reloading(m)
    later = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    # the socket, the channel, and the three
    m.wait_until(lambda: sum(t.startswith("socket:") for t in m.admin_process().fds().values()) >= 5, "three clients")
    assert status_of(m)["state"] == "reloading"
    assert [p.poll() for p in (first, *later)] == [None] * 3
    m.write_config(workers=2)
    let_go(m)
    assert first.communicate(timeout=DEADLINE)[0] == "web: generation 2 serves with 1 worker\n"
    answers = [process.communicate(timeout=DEADLINE)[0] for process in later]
    assert "web: generation 3 serves with 2 workers\n" in answers
    assert all(a.endswith(" serves with 2 workers\n") for a in answers), answers
    assert [p.returncode for p in (first, *later)] == [0] * 3


def test_stop_in_the_middle_of_a_reload(controlled):
    """Whoever waits for it is told."""
    m = controlled(workers=1, worker=LATE_WORKER)
    process = subprocess.Popen([MUSTER, f"--socket={m.control_path}", "reload", "web"], stderr=subprocess.PIPE, text=True)
    wait_reloading(m)
    m.kill()
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert m.wait_exit() == 0
    if "muster-admin" not in m.stderr():  # else it was killed, as it did not get to run for 2 s
        assert err == "muster: web: The service was stopped in the middle of the reload.\n"


def test_reload_with_a_limit(controlled):
    """--timeout gives up waiting, not the reload. It is long enough to ask."""
    m = controlled(workers=1, worker=LATE_WORKER)
    r = muster(m, "--timeout=4s", "reload", "web")
    assert (r.returncode, r.stderr) == (1, "muster: web: no answer in time\n")
    let_go(m)
    m.wait_status(lambda text: "generation 2" in text)


def test_scale(controlled):
    """Up and down, at once."""
    m = controlled(workers=1)
    r = muster(m, "scale", "web", "3")
    assert (r.returncode, r.stderr) == (0, "")
    assert r.stdout.startswith("web: 3 workers wanted, ")
    m.wait_status(lambda text: text.startswith("3/3 workers ready"))
    assert status_of(m)["workers"]["wanted"] == 3
    answer = post(m, "/v1/scale", {"workers": 1}, [JSON])
    assert answer.status == 200 and json.loads(answer.body)["workers"] == 1
    m.wait_until(lambda: len(m.worker_processes()) == 1, "one worker")


#
# Messages to workers
#


def worker_pids(m):
    """By slot."""
    return {p["slot"]: p["pid"] for p in status_of(m)["processes"]}


def received(m, pid):
    """What that worker has heard last on its channel."""
    with connected(m, pid) as client:
        return client.request("/received").body.decode().rstrip("\n")


def wait_received(m, pid, text):
    m.wait_until(lambda: received(m, pid) == text, f"{text} on the channel of {pid}")


def test_send(controlled, tmp_path):
    """To all workers, or to one, as one line whatever was typed."""
    m = begin(controlled, tmp_path, workers=2)
    pids = worker_pids(m)
    r = muster(m, "send", "web", '{"act": "flush",\n "names": ["ü"]}')
    assert (r.returncode, r.stdout, r.stderr) == (0, "web: delivered to 2 workers\n", "")
    for pid in pids.values():
        wait_received(m, pid, '{"act":"flush","names":["ü"]}')
    r = muster(m, "--json", "send", "web", "--worker", "2", '"hello"')
    assert (r.returncode, json.loads(r.stdout)) == (0, {"delivered": 1, "undelivered": []})
    wait_received(m, pids[2], '"hello"')
    assert received(m, pids[1]) == '{"act":"flush","names":["ü"]}'
    assert muster(m, "send", "web", "--worker=1", "--", "-1").returncode == 0
    wait_received(m, pids[1], "-1")


def test_send_deep_and_long(controlled, tmp_path):
    """What goes through is what the channel takes; what is too deep or too long is answered as such."""
    m = begin(controlled, tmp_path, workers=1)
    for depth in range(2040, 2052):
        answer = post(m, "/v1/send", b'{"message":' + b"[" * depth + b"]" * depth + b"}", [JSON])
        assert answer.status == (200 if depth < 2048 else 400), depth
    longest = json.dumps("x" * (256 * 1024 - 2)).encode()
    assert post(m, "/v1/send", b'{"message":' + longest + b"}", [JSON]).status == 200
    answer = post(m, "/v1/send", b'{"message":[' + longest + b"]}", [JSON])
    assert answer.status == 413 and error_of(answer)["message"] == "message: found 262146 bytes, expected at most 262144."
    assert post(m, "/v1/send", b" " * (260 * 1024 + 1), [JSON]).status == 413


def test_send_to_native_workers(controlled):
    """Which have no use for it, and go on."""
    m = controlled(workers=2)
    for text in '{"act":"suicide"}', '"x"', json.dumps("x" * 100_000):
        r = muster(m, "send", "web", text)
        assert (r.returncode, r.stdout) == (0, "web: delivered to 2 workers\n")
    assert m.get().status == 200
    assert len(worker_pids(m)) == 2 and not json.loads(ask(m, "/v1/exits").body)["exits"]


@pytest.mark.parametrize("cmd", ["NODE_HANDLE", "NODE_CLUSTER", "NODE_", "MUSTER", "\\u004dUSTER"])
def test_send_what_is_not_the_applications(controlled, tmp_path, cmd):
    """A worker would take it for Node's, or for the master's."""
    m = begin(controlled, tmp_path, workers=1)
    r = muster(m, "send", "web", f'{{"act":"disconnect","\\u0063md":"{cmd}"}}')
    assert (r.returncode, r.stdout) == (1, "")
    assert r.stderr == 'muster: web: A message whose "cmd" is MUSTER or begins with NODE_ is not the application\'s.\n'
    answer = post(m, "/v1/send", {"message": {"cmd": "NODE"}}, [JSON])
    assert answer.status == 200
    wait_received(m, worker_pids(m)[1], '{"cmd":"NODE"}')


def test_send_to_nobody(controlled, tmp_path):
    """Only who serves gets a message: that nobody does is a failure."""
    m = begin(controlled, tmp_path, workers=1)
    r = muster(m, "send", "web", "1", "--worker=2")
    assert (r.returncode, r.stderr) == (1, "muster: web: Worker 2 is not ready, or there is none of that number.\n")
    m.life.set_mode("never-ready")
    tell(m, "/crash")
    m.wait_status(lambda text: text.startswith("0/1 "))
    r = muster(m, "send", "web", "1")
    assert (r.returncode, r.stderr) == (1, "muster: web: No worker is ready.\n")


def test_send_to_who_does_not_read(controlled, tmp_path):
    """A worker that does not read, or has closed its channel, is named; the others have it."""
    m = begin(controlled, tmp_path, workers=3)
    pids = worker_pids(m)
    for slot, command in (1, "/deaf"), (2, "/close-channel"):
        with connected(m, pids[slot]) as client:
            assert client.request(command).status == 200
    text = json.dumps("x" * 100_000)

    def undelivered():
        r = muster(m, "--json", "send", "web", text)
        found = {(u["worker"], u["pid"]): u["reason"] for u in json.loads(r.stdout)["undelivered"]}
        assert r.returncode == (1 if found else 0)
        return found if len(found) == 2 else None  # the kernel's buffer and the master's queue are full

    deaf = {(1, pids[1]): "it does not read what it was sent before", (2, pids[2]): "its channel is closed"}
    assert m.wait_until(undelivered, "two that get nothing") == deaf
    r = muster(m, "send", "web", text)
    assert r.returncode == 1
    assert sorted(r.stdout.splitlines()) == [
        "web: delivered to 1 worker",
        f"web: worker 1 (pid {pids[1]}) has not got it: it does not read what it was sent before",
        f"web: worker 2 (pid {pids[2]}) has not got it: its channel is closed",
    ]
    assert worker_pids(m) == pids


# Node as a worker that hears and answers; it knows the channel by a name of its own.
NODE_WORKER = """
os.environ["NODE_CHANNEL_FD"] = os.environ["MUSTER_CHANNEL_FD"]
beat()
set_state(READY)
os.execv(NODE, [NODE, "-e", '''
    process.on('message', (m) => process.send({ cmd: 'MUSTER', act: 'status', text: 'heard ' + JSON.stringify(m) }));
'''])
"""


@pytest.mark.skipif(not shutil.which("node"), reason="there is no Node")
def test_send_to_node(controlled):
    """process.on('message') gets it, also what was sent before there was such a handler."""
    m = controlled(workers=1, worker=f"NODE = {shutil.which('node')!r}\n{NODE_WORKER}")
    r = muster(m, "send", "web", '{"a":[1,"\u2028"]}')
    assert (r.returncode, r.stdout) == (0, "web: delivered to 1 worker\n")
    m.wait_until(lambda: status_of(m)["processes"][0]["status"] == 'heard {"a":[1,"\u2028"]}', "an answer")


@pytest.mark.parametrize(
    "body, message",
    [
        (b"", "The body is no JSON"),
        (b"{", "The body is no JSON"),
        (b"[]", "The body: found [], expected an object."),
        (b"{}", "workers: found nothing, expected a number from 1 to 256."),
        (b'{"workers":0}', "workers: found 0, expected a number from 1 to 256."),
        (b'{"workers":257}', "workers: found 257, expected a number from 1 to 256."),
        (b'{"workers":"2"}', 'workers: found "2", expected a number from 1 to 256.'),
        (b'{"workers":2,"x":1}', "The body: found 2 members"),
        (b'{"workers":"\x1b[2J<b>"}', "The body is no JSON"),
    ],
)
def test_scale_wrong(controlled, body, message):
    """400, with what was found and what was expected."""
    answer = post(controlled(workers=1), "/v1/scale", body, [JSON])
    assert answer.status == 400
    assert error_of(answer)["message"].startswith(message)


#
# HTTP
#


def test_connection_is_kept(controlled):
    """Many requests on one connection, one after the other or all at once, in order; HEAD has no body."""
    m = controlled()
    with contextlib.closing(m.connect("control")) as client:
        for _ in range(5):
            answer = client.request("/v1/status")
            assert answer.status == 200 and not answer.closes
            assert answer.headers["cache-control"] == "no-store"
        size = int(client.request("/v1/exits", "HEAD").headers["content-length"])
        assert size == len(client.request("/v1/exits").body)
        client.send(b"".join(f"GET /v1/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for name in ("exits", "nothing", "status")))
        assert [client.answer().status for _ in range(3)] == [200, 404, 200]
        assert client.request("/v1/status", headers=["Connection: close"]).closes
        assert client.at_end()
    with contextlib.closing(m.connect("control")) as client:
        answer = client.request("/v1/status", version="1.0")
        assert answer.status == 200 and answer.closes and client.at_end()


@pytest.mark.parametrize(
    "request_text, status",
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /v1/statusx HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n\r\n", 403),
        (b"POST /v1/scale HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"workers\":2}", 415),
        (b"POST /v1/scale HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n{\"workers\":2}", 415),
        (b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415),
        (b"POST /v1/scale HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /v1/scale HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 65537\r\n\r\n", 413),
        (b"GET /v1/status HTTP/1.1\r\nHost: x\r\nExpect: dinner\r\n\r\n", 417),
        (b"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"GET /v1/status HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"BREW /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET /v1/status HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/status HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\r\n\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"x" * 17000, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 17000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, int) else None,
)
def test_wrong_requests(controlled, request_text, status):
    """Each with its status and a JSON body that says what is wrong; nobody else notices."""
    m = controlled(workers=1)
    with contextlib.closing(m.connect("control")) as client:
        client.send(request_text)
        answer = client.answer()
        assert answer.status == status
        assert error_of(answer)["message"]
        if status == 405:
            assert answer.headers["allow"] == ("POST" if b"reload" in request_text else "GET, HEAD")
    assert status_of(m)["generation"] == 1
    assert status_of(m)["workers"]["wanted"] == 1


def test_expect_continue(controlled):
    """Who asks first is told to go on, or gets the refusal instead."""
    m = controlled(workers=1)
    body = b'{"workers":1}'
    head = f"POST /v1/scale HTTP/1.1\r\nHost: x\r\n{{}}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with contextlib.closing(m.connect("control")) as client:
        client.send(head.format(JSON).encode())
        expected = b"HTTP/1.1 100 Continue\r\n\r\n"
        while len(client.buffer) < len(expected):
            assert client.fill()
        assert client.buffer == expected
        client.buffer = b""
        client.send(body)
        assert client.answer().status == 200
    with contextlib.closing(m.connect("control")) as client:
        client.send(head.format("Content-Type: x").encode())
        answer = client.answer()
        assert answer.status == 415 and answer.closes


def test_in_pieces(controlled):
    """A request may come byte by byte, and its body apart."""
    m = controlled(workers=1)
    text = f"POST /v1/scale HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: 13\r\n\r\n".encode() + b'{"workers":1}'
    with contextlib.closing(m.connect("control")) as client:
        for i in range(len(text)):
            client.send(text[i : i + 1])
        assert client.answer().status == 200


def test_largest_body(controlled):
    """64 KiB of body are taken, which is more than anybody needs."""
    m = controlled(workers=1)
    body = b'{"workers":1' + b" " * (65536 - 13) + b"}"
    assert len(body) == 65536
    assert post(m, "/v1/scale", body, [JSON]).status == 200


def test_slow_clients(controlled):
    """A request that does not come in time: 408. A connection that is not used: closed."""
    m = controlled(workers=1, admin_options="--request-timeout=4s")
    with contextlib.closing(m.connect("control")) as client, contextlib.closing(m.connect("control")) as unused:
        assert unused.request("/v1/status").status == 200
        client.send(b"GET /v1/sta")
        answer = client.answer()
        assert answer.status == 408 and answer.closes and error_of(answer)["code"] == "timeout"
        assert unused.at_end()


def test_many_clients(controlled):
    """64 at a time are served; those beyond wait until there is room, and nobody is turned away."""
    m = controlled(workers=1)
    clients = [m.connect("control") for _ in range(100)]
    try:
        for client in clients:
            client.send(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients[:64]:
            assert client.answer().status == 200
        assert not select.select([client.sock for client in clients[64:]], [], [], 0)[0]
        for i, client in enumerate(clients[64:]):
            clients[i].close()
            assert client.answer().status == 200
    finally:
        for client in clients:
            client.close()
    assert ask(m, "/v1/status").status == 200


def test_client_hangs_up(controlled):
    """A client that leaves in the middle, with or without a reset, takes nothing with it; its reload goes on."""
    m = controlled(workers=1, worker=LATE_WORKER)
    client = m.connect("control")
    client.send(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_reloading(m)
    client.close()
    for data in b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /v1/st", b"":
        client = m.connect("control")
        client.send(data)
        client.close()
    assert status_of(m)["state"] == "reloading"
    let_go(m)
    m.wait_status(lambda text: "generation 2" in text)


#
# Ends
#


def test_idle(controlled):
    """With nobody asking it ends, the master keeps nothing of it, and the next client starts it again."""
    m = controlled(workers=1, admin_options="--idle-timeout=1100ms")
    for _ in range(2):
        with contextlib.closing(m.connect("control")) as client:
            assert client.request("/v1/status").status == 200
            admin = m.admin_process()
            assert admin is not None
            fds = len(m.process.fds())
        admin.wait_end()
        m.wait_until(lambda: m.admin_process() is None, "the end of muster-admin")
        m.wait_until(lambda: len(m.process.fds()) < fds, "the end of its channel")
    assert m.stderr().count("muster-admin") == 0


def test_killed_in_the_middle(controlled):
    """muster-admin is killed while a reload is asked for: the command fails with a word, the reload goes on, others are served."""
    m = controlled(workers=1, worker=LATE_WORKER)
    process = subprocess.Popen([MUSTER, f"--socket={m.control_path}", "reload", "web"], stderr=subprocess.PIPE, text=True)
    wait_reloading(m)
    m.admin_process().kill(signal.SIGKILL)
    _, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (1, "muster: web: the connection was closed without an answer\n")
    assert status_of(m)["state"] == "reloading"
    let_go(m)
    m.wait_status(lambda text: "generation 2" in text)
    for _ in range(3):
        m.admin_process().kill(signal.SIGKILL)
        assert status_of(m)["generation"] == 2


def test_hangs(controlled):
    """A muster-admin that hangs harms nobody but those who ask; the stop of the service does not wait for it."""
    m = controlled(workers=1)
    assert status_of(m)["generation"] == 1
    m.admin_process().kill(signal.SIGSTOP)
    assert m.get().status == 200
    r = muster(m, "--timeout=200ms", "status")
    assert (r.returncode, r.stderr) == (1, "muster: default: no answer in time\n")
    m.kill()
    assert m.wait_exit() == 0
    assert m.children() == []


def test_stop(controlled):
    """The service stops while a reload is asked for: its client is told, and the status is 0."""
    m = controlled(workers=1, worker=LATE_WORKER)
    process = subprocess.Popen([MUSTER, f"--socket={m.control_path}", "reload", "web"], stderr=subprocess.PIPE, text=True)
    wait_reloading(m)
    admin = m.admin_process()
    let_go(m)
    m.kill()
    _, err = process.communicate(timeout=DEADLINE)
    # "done" is a legal answer too: the new worker may have been faster than the signal
    assert process.returncode == 0 or err.startswith("muster: web: ")
    assert m.wait_exit() == 0
    admin.wait_end()


def test_master_dies(controlled):
    """The master is killed: who waits gets an answer, and muster-admin goes."""
    m = controlled(workers=1, worker=LATE_WORKER)
    with contextlib.closing(m.connect("control")) as client:
        client.send(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_reloading(m)
        admin = m.admin_process()
        m.kill(signal.SIGKILL)
        answer = client.answer()
        assert answer.status == 503 and answer.closes and error_of(answer)["code"] == "unavailable"
    admin.wait_end()


def test_control_socket_alone(start, folder):
    """A service with nothing else to listen on serves nobody, and says so."""
    m = start(sockets=[("control", unix(folder / "control"))])
    assert m.wait_exit() == 1
    assert 'found no socket but the one called "control", expected one to serve' in m.stderr()
    assert m.statuses()[0].startswith("Failed to start: found no socket but")


#
# The command
#


@pytest.mark.parametrize(
    "arguments, text",
    [
        ((), "muster: no command was given\n"),
        (("bake",), 'muster: there is no such command: found "bake"\n'),
        (("reload",), "muster: no app was named\n"),
        (("exits",), "muster: no app was named\n"),
        (("status", "a", "b"), 'muster: too many arguments: found "b"\n'),
        (("scale", "web"), "the name of an app and a number of workers are expected"),
        (("scale", "web", "0"), 'the number of workers must be from 1 to 256: found "0"\n'),
        (("scale", "web", "257"), 'found "257"\n'),
        (("scale", "web", "two"), 'found "two"\n'),
        (("status", "../x"), 'found "../x"\n'),
        (("status", ""), 'found ""\n'),
        (("send",), "the name of an app and a message are expected"),
        (("send", "web"), "the name of an app and a message are expected"),
        (("send", "web", "hello"), "the message must be JSON, in quotes for the shell, like '\"text\"' or '{\"key\":1}': found \"hello\" ("),
        (("send", "web", "1", "2"), 'muster: too many arguments: found "2"\n'),
        (("send", "web", "1", "--worker=0"), '--worker: expected a number from 1 to 256: found "0"\n'),
        (("send", "web", "1", "--worker", "x"), 'found "x"\n'),
        (("reload", "web", "--worker=1"), "--worker is for the command send"),
        (("--timeout=5", "status"), '--timeout: expected a time span such as 30s, or 0 for none: found "5"\n'),
        (("--nonsense",), "unrecognized option"),
        (("--socket",), "requires an argument"),
    ],
)
def test_usage(arguments, text):
    """Exit 2, the reason and where to find help."""
    r = run(*arguments)
    assert (r.returncode, r.stdout) == (2, "")
    assert text in r.stderr and r.stderr.endswith('Try "muster --help".\n')


def test_help_and_version():
    """On stdout, 0."""
    r = run("--help")
    assert r.returncode == 0 and r.stdout.startswith("muster [OPTION…] COMMAND") and r.stderr == ""
    r = run("--version")
    assert r.returncode == 0 and r.stdout.startswith("muster 0.") and r.stderr == ""


def test_full_disk(controlled):
    """What could not be printed is a failure."""
    m = controlled(workers=1)
    with open("/dev/full", "w") as full:
        r = subprocess.run([MUSTER, f"--socket={m.control_path}", "status"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert r.returncode == 1 and "cannot write: No space left on device" in r.stderr


def test_not_running(folder):
    """No socket, nobody behind it, no such app: each is said, with exit 1."""
    path = folder / "control"
    r = run(f"--socket={path}", "status", "web")
    assert (r.returncode, r.stderr) == (1, f"muster: web is not running: there is no {path}\n")
    unix(path).close()
    r = run(f"--socket={path}", "reload", "web")
    assert (r.returncode, r.stderr) == (1, f"muster: web is not running: nobody listens on {path}\n")
    r = run("reload", "no-such-app")
    assert r.returncode == 1
    assert r.stderr.startswith('muster: there is no app "no-such-app": no /') and r.stderr.endswith("/muster/no-such-app.conf\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_permission(controlled, folder):
    """Who may not use the socket is told who may."""
    m = controlled(workers=1)
    folder.chmod(0o755)
    m.control_path.chmod(0o660)
    with tempfile.TemporaryDirectory() as copy:  # the build may be where only we can read
        os.chmod(copy, 0o755)
        program = pathlib.Path(copy, "muster")
        program.write_bytes(MUSTER.read_bytes())
        program.chmod(0o755)

        def as_nobody():
            return subprocess.run([program, f"--socket={m.control_path}", "reload", "web"], user=65534, group=65534, extra_groups=[],
                                  cwd="/", capture_output=True, text=True, timeout=DEADLINE)

        r = as_nobody()
        assert r.returncode == 1 and "it is for its owner alone; SocketGroup= of the control socket's unit lets a group in" in r.stderr
        os.chown(m.control_path, 0, 1)
        r = as_nobody()
        assert r.returncode == 1 and r.stderr == f'muster: no permission to use {m.control_path}: it is for the group "daemon"\n'
        os.chown(m.control_path, 0, 65534)
        assert as_nobody().returncode == 0
        folder.chmod(0o700)
        assert f"no permission to reach {m.control_path}" in as_nobody().stderr


def test_place(controlled, folder):
    """Without --socket and without a service of the system, the user's own is found."""
    m = controlled(workers=1)
    place = folder / "muster/web"
    place.mkdir(parents=True)
    (place / "control").symlink_to(m.control_path)
    r = run("status", "web", env={"XDG_RUNTIME_DIR": str(folder)})
    assert r.returncode == 0 and r.stdout.startswith("web: running")


class Other:
    """Something else that listens: answers each connection with the same bytes, or never."""

    def __init__(self, path, answer):
        self.path = path
        self.sock = unix(path)
        self.answer = answer
        self.clients = []
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.sock.accept()
                self.clients.append(client)
                if self.answer is not None:
                    Client(client).fill()
                    client.sendall(self.answer)
                    client.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for client in self.clients:
            client.close()
        self.sock.close()


def http(status, body):
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "answer, text",
    [
        (b"", "muster: web: the connection was closed without an answer\n"),
        (b"SSH-2.0-x\r\n", "muster: web: "),
        (http(200, b""), "muster: web: the answer is not what was expected\n"),
        (http(200, b"[]"), "muster: web: the answer is not what was expected\n"),
        (http(200, b"\xff"), "muster: web: the answer is not what was expected\n"),
        (http(500, b"oops"), "muster: web: the answer has the status 500 and no reason\n"),
        (http(422, '{"error":{"message":"a\\u001b[2J\u009b2Jb"}}'.encode()), "muster: web: a?[2J??2Jb\n"),
        (None, "muster: web: no answer in time\n"),
    ],
    ids=["nothing", "ssh", "empty", "array", "binary", "status", "control", "silent"],
)
def test_others_answer(folder, answer, text):
    """Whatever listens there, the command ends with 1 and a word, and nothing speaks to the terminal."""
    with Other(folder / "control", answer) as other:
        r = run(f"--socket={other.path}", "--timeout=" + ("200ms" if answer is None else "20s"), "status", "web")
    assert (r.returncode, r.stdout) == (1, "")
    assert r.stderr.startswith(text)
    assert not any(ord(c) < 0x20 and c != "\n" or 0x7F <= ord(c) < 0xA0 for c in r.stderr)


def test_completion(folder):
    """bash completes the commands, the options, and the apps that are configured."""
    for name in "web", "shop":
        (folder / f"{name}.conf").touch()
    script = (TOP / "src/completion/muster.bash").read_text().replace("@configdir@", str(folder))
    (folder / "muster.bash").write_text(script)

    def complete(*words):
        line = " ".join(words)
        code = (
            f"source {folder}/muster.bash; compopt() {{ :; }}\n"
            f"COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; COMP_LINE={line!r}; COMP_POINT={len(line)}\n"
            "_muster muster; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        r = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, timeout=DEADLINE)
        assert (r.returncode, r.stderr) == (0, "")
        return set(r.stdout.split())

    assert complete("muster", "") == {"status", "exits", "reload", "scale", "send"}
    assert complete("muster", "s") == {"status", "scale", "send"}
    assert complete("muster", "reload", "") == {"web", "shop"}
    assert complete("muster", "reload", "w") == {"web"}
    assert complete("muster", "--json", "status", "s") == {"shop"}
    assert complete("muster", "scale", "web", "") == set()
    assert complete("muster", "send", "--worker", "1", "w") == {"web"}
    assert complete("muster", "send", "--worker", "=", "1", "w") == {"web"}
    assert complete("muster", "reload", "web", "") == set()
    assert {"--json", "--help", "--timeout="} <= complete("muster", "--")
