# SPDX-License-Identifier: MIT
"""The access log of native workers: a line for every answer, in files that are shared, rotated, full; and in the journal."""

import contextlib
import json
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from worker_harness import BINARY, DEADLINE, READY, Worker

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")

BIG = 20 * 1024 * 1024
TIME = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\]"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    (root / "a.txt").write_bytes(b"hello")
    (root / "big.bin").write_bytes(bytes(BIG))
    return root


class Log:
    def __init__(self, path):
        self.path = path

    def lines(self, path=None):
        with contextlib.suppress(FileNotFoundError):
            return (path or self.path).read_text().split("\n")[:-1]
        return []

    def objects(self, path=None):
        return [json.loads(line) for line in self.lines(path)]

    def wait(self, n):
        """Until there are so many lines; they come a second after the first of them."""
        wait_for(lambda: len(self.lines()) >= n)
        assert len(self.lines()) == n
        return self.lines()


def wait_for(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        select.select([], [], [], 0.005)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "access.log")


@pytest.fixture
def worker(site, log):
    with contextlib.ExitStack() as stack:

        def start(form="json", *options, **kwargs):
            w = Worker(site, f"--access-log={log.path}", f"--access-log-format={form}", *options, **kwargs)
            return stack.enter_context(w).wait_state(READY)

        yield start


def finish(w):
    w.kill()
    assert w.wait_exit() == 0


FIELDS = ["Referer: http://there/", 'User-Agent: curl "8"']


def test_common(worker, log):
    """As Apache and nginx have it, and it comes without anything else happening."""
    w = worker("common")
    w.get("/a.txt?b", headers=FIELDS)
    (line,) = log.wait(1)
    assert re.fullmatch(rf'127\.0\.0\.1 - - {TIME} "GET /a\.txt\?b HTTP/1\.1" 200 5', line)


def test_combined(worker, log):
    """With the two fields; a quote in them ends nothing."""
    w = worker("combined")
    w.get("/a.txt", headers=FIELDS)
    w.get("/a.txt", version="1.0")
    first, second = log.wait(2)
    assert re.fullmatch(rf'127\.0\.0\.1 - - {TIME} "GET /a\.txt HTTP/1\.1" 200 5 "http://there/" "curl \\x228\\x22"', first)
    assert re.fullmatch(rf'127\.0\.0\.1 - - {TIME} "GET /a\.txt HTTP/1\.0" 200 5 "-" "-"', second)


def test_json(worker, log):
    """All that is known, and the time is the time."""
    before = time.time()
    w = worker("json")
    w.get("/a.txt?b", headers=FIELDS)
    finish(w)
    (o,) = log.objects()
    at = o.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)
    assert before - 1 < time.mktime(time.strptime(at[:19] + " UTC", "%Y-%m-%dT%H:%M:%S %Z")) - time.timezone < time.time() + 1
    assert 0 <= o.pop("duration_usec") < DEADLINE * 1_000_000
    assert o == {
        "peer": "127.0.0.1", "method": "GET", "target": "/a.txt?b", "protocol": "HTTP/1.1", "host": "test", "status": 200,
        "bytes": 5, "referer": "http://there/", "user_agent": 'curl "8"', "worker": 3, "request": 1,
    }  # fmt: skip


def test_none(site, tmp_path):
    """Without the option there is none."""
    with Worker(site) as w:
        w.wait_state(READY)
        w.get("/a.txt")
        assert not any(os.readlink(f"/proc/{w.serving}/fd/{fd}").endswith(".log") for fd in w.wait_twin().fds())


def test_pipelined(worker, log):
    """Each request of a packet has its line, in their order, with what was sent of a body."""
    w = worker()
    etag = w.get("/a.txt").headers["etag"]
    with contextlib.closing(w.connect()) as c:
        c.send(
            b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\nHEAD /a.txt HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /a.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: %b\r\n\r\nGET /none HTTP/1.1\r\nHost: x\r\n\r\n" % etag.encode()
        )
        c.answer(), c.answer(head=True), c.answer()
        missing = c.answer()
    finish(w)
    got = [(o["method"], o["target"], o["status"], o["bytes"]) for o in log.objects()]
    assert got[1:] == [
        ("GET", "/a.txt", 200, 5),
        ("HEAD", "/a.txt", 200, 0),
        ("GET", "/a.txt", 304, 0),
        ("GET", "/none", 404, len(missing.body)),
    ]
    assert [o["request"] for o in log.objects()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("form", ["common", "combined", "json"])
def test_bad_requests(worker, log, form):
    """What is no request is one line of what it was, harmless to read; a browser's TLS for example."""
    rubbish = [b'\x16\x03\x01 "\\\x7f\xff\x1b[31m\r\n\r\n', b"GET /\xc3\xa4\xe2\x80\xa8 HTTP/1.1\r\nHost: x\r\n\r\n", b"x\r\n\r\n"]
    w = worker(form)
    for data in rubbish:
        with contextlib.closing(w.connect()) as c:
            c.send(data)
            assert c.answer().status == 400
    finish(w)
    lines = log.lines()
    assert len(lines) == 3 == len(log.path.read_text().splitlines())
    assert all(line.isascii() and line.isprintable() for line in lines if form != "json")
    if form == "json":
        first, second, third = log.objects()
        assert first["line"] == '\x16\x03\x01 "\\\x7f\xff\x1b[31m' and first["method"] is None
        assert third["line"] == "x"
        assert {o["status"] for o in (first, second, third)} == {400}
    else:
        assert r'"\x16\x03\x01 \x22\x5C\x7F\xFF\x1B[31m" 400 ' in lines[0]


def test_late_request(worker, log):
    """One that does not come to its end is answered with 408, and has a line."""
    w = worker("json", "--request-timeout=50ms")
    with contextlib.closing(w.connect()) as c:
        c.send(b"GET /a.txt HT")
        assert c.answer().status == 408
    finish(w)
    (o,) = log.objects()
    assert (o["status"], o["line"]) == (408, "GET /a.txt HT")


def test_aborted(worker, log):
    """Who leaves in the middle of an answer: how much was sent of it, and whose it was."""
    w = worker()
    with contextlib.closing(w.connect(rcvbuf=65536)) as c:
        c.send(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        while len(c.buffer) < 100_000:
            c.fill()
        c.reset()
    w.wait_until(lambda: w.connections == 0)
    finish(w)
    (o,) = log.objects()
    assert o["aborted"] is True and o["status"] == 200 and o["peer"] == "127.0.0.1" and o["target"] == "/big.bin"
    assert 50_000 < o["bytes"] < BIG


def test_unix_socket(worker, log, tmp_path):
    """A client without an address."""
    w = worker("json", unix_path=tmp_path / "socket")
    with contextlib.closing(w.connect(unix=True)) as c:
        c.request("/a.txt")
    finish(w)
    assert log.objects()[0]["peer"] == "unix:"


def test_no_timer(worker, log):
    """When everything is written the worker sleeps for ever."""
    w = worker()
    w.get("/a.txt")
    log.wait(1)
    w.wait_until(lambda: w.connections == 0)

    def sleeps_for_ever():
        call = pathlib.Path(f"/proc/{w.serving}/syscall").read_text().split()
        return call[0] in ("232", "281") and int(call[4], 16) & 0xFFFFFFFF == 0xFFFFFFFF

    w.wait_until(sleeps_for_ever)


def test_killed(worker, log):
    """SIGKILL a second later costs no line."""
    w = worker()
    w.get("/a.txt")
    log.wait(1)
    w.kill(signal.SIGKILL)
    assert w.wait_exit() == -signal.SIGKILL
    assert len(log.objects()) == 1


def test_shared(worker, log):
    """Two workers, one file: no line is torn and none is lost, whatever their length."""
    w = worker()

    def burst(length):
        with contextlib.closing(w.connect()) as c:
            for i in range(100):
                c.request("/" + "x" * (length + i))

    with w.sibling() as other:
        other.wait_state(READY)
        threads = [threading.Thread(target=burst, args=(300 * i,)) for i in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        finish(w)
        finish(other)
    requests = {3: [], 4: []}
    for o in log.objects():
        requests[o["worker"]].append(o["request"])
    assert len(requests[3]) + len(requests[4]) == 1000
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in requests.values())


def test_rotated(worker, log):
    """Moved away, and made anew or not: lines go to the new file, and none is lost on the way. No signal is needed."""
    w = worker()
    w.get("/a.txt")
    log.wait(1)
    moved = log.path.with_suffix(".1")
    log.path.rename(moved)
    n = 0

    def one_more():
        nonlocal n
        n += 1
        w.get("/a.txt")
        return log.lines()

    wait_for(one_more)
    log.path.rename(log.path.with_suffix(".2"))
    log.path.touch(0o600)
    wait_for(one_more)
    finish(w)
    files = [moved, log.path.with_suffix(".2"), log.path]
    assert [o["request"] for f in files for o in log.objects(f)] == list(range(1, n + 2))


def test_logrotate(worker, log, tmp_path):
    """With the tool that does it everywhere."""
    if not pathlib.Path("/usr/sbin/logrotate").exists():
        pytest.skip("no logrotate")
    conf = tmp_path / "conf"
    conf.write_text(f"{log.path} {{\n rotate 3\n create 0640\n missingok\n}}\n")
    conf.chmod(0o600)
    tmp_path.chmod(0o755)
    w = worker()
    w.get("/a.txt")
    log.wait(1)
    subprocess.run(["/usr/sbin/logrotate", "-f", "-s", tmp_path / "state", conf], check=True, timeout=DEADLINE)
    wait_for(lambda: w.get("/a.txt") and log.lines())


@pytest.mark.parametrize("kind", ["directory", "fifo", "device", "missing folder"])
def test_refused(site, tmp_path, kind):
    """What cannot hold a log ends the start with a word, and is not waited for."""
    path = tmp_path / "log"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = pathlib.Path("/dev/full")
    else:
        path = path / "access"
    with Worker(site, f"--access-log={path}") as w:
        assert w.wait_exit() == 1
        assert str(path) in w.reason()
        if kind in ("fifo", "device"):
            assert "is not a regular file" in w.reason()


def test_module(log, tmp_path):
    """The answers of a module have lines like those of files."""
    module = pathlib.Path(os.environ.get("MUSTER_BUILD_DIR", "build"), "packaging/examples/hello.so")
    if not module.exists():
        pytest.skip("no module is built")
    with Worker(tmp_path, f"--module={module}", f"--access-log={log.path}", "--access-log-format=json") as w:
        w.wait_state(READY)
        status = w.get("/").status
        finish(w)
    (o,) = log.objects()
    assert (o["status"], o["target"]) == (status, "/")


#
# In the journal
#


@pytest.fixture
def journal(tmp_path):
    """Its socket for streams, where nothing but the worker sees it: (listener, what a Worker needs for it)."""
    mount = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    folder = tmp_path / "run/systemd/journal"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "stdout"))
        listener.listen()
        listener.settimeout(DEADLINE)
        script = f'exec {" ".join(mount)} sh -c \'mount --bind "$0" /run && exec "$@"\' "$0" "$@"'
        st = os.fstat(2)  # which the worker inherits
        environment = {"JOURNAL_STREAM": f"{st.st_dev}:{st.st_ino}"}
        yield listener, {"wrapper": ("/bin/sh", "-c", script, tmp_path / "run"), "environment": environment}


def take_stream(listener):
    """Identifier, level, whether lines have a level of their own; and the stream behind that."""
    stream = listener.accept()[0].makefile("rb")
    header = [stream.readline().decode().rstrip("\n") for _ in range(7)]
    return header[0], header[2], header[3], stream


def test_journal(site, journal):
    """A stream of its own, with a name of its own, beside that of what the worker says otherwise."""
    listener, needs = journal
    with Worker(site, "--access-log=journal", "--access-log-format=combined", **needs) as w:
        w.wait_state(READY)
        assert take_stream(listener)[0] == "default-3"
        name, level, prefix, stream = take_stream(listener)
        assert (name, level, prefix) == ("default-access", "6", "0")
        w.get("/a.txt")
        assert re.fullmatch(rf'127\.0\.0\.1 - - {TIME} "GET /a\.txt HTTP/1\.1" 200 5 "-" "-"\n', stream.readline().decode())
        w.get("/none")
        finish(w)
        assert stream.read().count(b"\n") == 1


def test_deaf_journal(site, journal):
    """One that does not read holds up nobody; what is missing is told where it is missing."""
    listener, needs = journal
    with Worker(site, "--access-log=journal", "--access-log-format=json", **needs) as w:
        w.wait_state(READY)
        take_stream(listener)
        stream = take_stream(listener)[3]
        n = 0
        request = b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        with contextlib.closing(w.connect()) as c:
            for _ in range(150):  # three times what fits
                c.send(request * 50)
                for _ in range(50):
                    c.answer()
                    n += 1
        found, dropped = [], None
        while dropped is None:
            o = json.loads(stream.readline())
            if "dropped" in o:
                dropped = o["dropped"]
            else:
                found.append(o["request"])
        finish(w)
    assert found == list(range(1, len(found) + 1))
    assert 0 < dropped == n - len(found)


#
# Under the master
#


def configured(target, form="json"):
    return f'http: {{ access_log = "{target}"; access_log_format = "{form}"; }};\n'


def test_disk_full(start, log):
    """A limit stands for the end of the disk: answers come, lines are dropped and counted, and then it goes on."""
    m = start(configured(log.path), workers=1)
    m.wait_ready()
    (worker,) = m.worker_processes()
    pid = m.serving(worker).pid
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (3000, hard))
    client = m.connect()
    n = 0
    long = "/" + "x" * 1000
    while "Failed to write the access log" not in m.stderr() or n < 500:
        assert client.request(long).status == 404
        n += 1
    assert log.path.stat().st_size == 3000
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    wait_for(lambda: client.request("/").status and "can be written again" in m.stderr())
    dropped = int(re.search(r"can be written again; (\d+) lines", m.stderr())[1])
    client.close()
    m.kill()
    assert m.wait_exit() == 0
    requests = [o["request"] for o in log.objects()]
    assert requests == sorted(set(requests)) and 0 < dropped == requests[-1] - len(requests)


def test_journal_elsewhere(start):
    """Where there is no journal the lines go to stderr, whole, among all others."""
    m = start(configured("journal", "common"), workers=2)
    m.wait_ready()
    for _ in range(10):
        m.get("/whoami")
    m.kill()
    assert m.wait_exit() == 0
    lines = [line for line in m.stderr().splitlines() if "/whoami" in line]
    assert len(lines) == 10
    assert all(re.fullmatch(rf'127\.0\.0\.1 - - {TIME} "GET /whoami HTTP/1\.1" 200 \d+', line) for line in lines)


def test_reload(start, log):
    """A new configuration has its log; the one before stays as it is."""
    m = start(configured(log.path), workers=1)
    m.wait_ready()
    m.get("/whoami")
    other = Log(log.path.with_name("other"))
    m.write_config(configured(other.path, "common"))
    m.kill(signal.SIGHUP)
    wait_for(lambda: m.get("/whoami") and other.lines())
    assert all(json.loads(line) for line in log.lines()) and log.lines()


def test_refused_by_master(start, tmp_path):
    """A log that cannot be opened is the reason of the failed start."""
    m = start(configured(tmp_path), workers=1)
    assert m.wait_exit() != 0
    assert f"Failed to open the access log {tmp_path}: Is a directory" in m.stderr()
