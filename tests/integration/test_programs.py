# SPDX-License-Identifier: MIT
"""Programs that know nothing of muster, as muster-recipes(7) says to run them: all workers serve, a reload loses nothing, a
stop finishes what is open, a crash takes nobody along, and a bad deploy is not served."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import socket

import pytest
from harness import Process, tcp, unix
from lifecycle import wait_said
from load import Load, address_of
from worker_harness import BUILD_DIR, DEADLINE

SOURCES = pathlib.Path(__file__).parent / "programs"
LISTEN = BUILD_DIR / "tests/integration/listen_program"
CLIENTS = 4


@dataclasses.dataclass
class Program:
    """@command, @environment: as in the configuration, where APP is the folder with the @files. @source: the one that a bad deploy
    breaks. @needs: what must be there, with Debian's package for it. @lossless: it answers everyone whom it has accepted before
    it goes. @workers: further settings."""

    name: str
    files: tuple
    command: str
    environment: str = ""
    needs: tuple = ()
    workers: str = ""
    lossless: bool = True

    @property
    def source(self):
        return self.files[0]


GUNICORN = ("/usr/bin/gunicorn", "gunicorn")
UVICORN = ("/usr/lib/python3/dist-packages/uvicorn", "python3-uvicorn")
PUMA = ("/usr/bin/puma", "puma"), ("/usr/share/rubygems-integration/all/gems/sd_notify-0.1.1", "ruby-sd-notify")
NGINX = ("/usr/sbin/nginx", "nginx-light")

WAIT = "wait_ready = true;"

PROGRAMS = [
    Program("gunicorn", ("wsgi.py",), '"/usr/bin/gunicorn", "--preload", "--workers=1", "wsgi:application"', needs=(GUNICORN,),
            workers=WAIT),
    Program("uvicorn", ("asgi.py",), '"/usr/bin/python3", "-m", "uvicorn", "--fd", "%{fd:http}", "asgi:application"',
            needs=(UVICORN,), lossless=False),
    Program("uvicorn-serve", ("asgi.py", "serve.py"), '"/usr/bin/python3", "serve.py"', needs=(UVICORN,), workers=WAIT),
    Program("puma", ("config.ru", "puma.rb"), '"/usr/bin/puma", "--environment=production", "--config=puma.rb"',
            needs=PUMA, workers=WAIT),
    Program("nginx", ("nginx.conf",),
            '"/usr/sbin/nginx", "-e", "stderr", "-p", "APP", "-c", "APP/nginx.conf", "-g", "daemon off; pid APP/%{worker}.pid;"',
            environment='NGINX = "%{fd:http};";', needs=(NGINX,), workers='stop_signal = "SIGQUIT";'),
    Program("python", ("listen.py",), '"/usr/bin/python3", "listen.py"', workers=WAIT),
    Program("c", ("listen_program",), '"./listen_program"', workers=WAIT),
]


class Fifo:
    """Holds a request up: the program reads until the test closes its end."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)

    def wait_begun(self, m):
        self.fd = m.wait_until(self._open, "a program at the FIFO")

    def _open(self):
        with contextlib.suppress(OSError):  # ENXIO: nobody reads
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def release(self):
        os.close(self.fd)


class Upstream:
    """Likewise, the one behind a proxy."""

    def __init__(self, path):
        self.path = path
        self.listener = unix(path)
        os.chmod(path, 0o666)

    def wait_begun(self, m):
        self.listener.settimeout(DEADLINE)
        self.connection, _ = self.listener.accept()

    def release(self):
        with self.connection, self.listener:
            self.connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")


class Deployed:
    """A program in a folder of its own, where a test can deploy something worse."""

    def __init__(self, program, folder, listener=None):
        self.program = program
        self.folder = folder / "app"
        self.folder.mkdir()
        self.socket = listener or tcp()
        self.gate = (Upstream if program.name == "nginx" else Fifo)(folder / "gate")
        for name in program.files:
            self.copy(name)

    def copy(self, name):
        if name == LISTEN.name:
            shutil.copy(LISTEN, self.folder / name)
            return
        text = (SOURCES / name).read_text()
        user = "user root;" if os.getuid() == 0 else ""  # the folder is for nobody else
        address = address_of(self.socket)
        listen = f"127.0.0.1:{address}" if self.socket.family == socket.AF_INET else f"unix:{address}"
        for word, value in ("@USER@", user), ("@LISTEN@", listen), ("@UPSTREAM@", self.gate.path):
            text = text.replace(word, str(value))
        (self.folder / name).write_text(text)

    def spoil(self):
        """A deploy that nothing can come of; the file is a new one, as the old one may be running."""
        new = self.folder / "new"
        new.write_text("this is not what it should be (\n")
        new.chmod(0o755)
        new.rename(self.folder / self.program.source)

    def app(self):
        p = self.program
        return (
            f'kind = "program"; directory = "{self.folder}"; command = [ {p.command} ];'
            f'environment = {{ PYTHONDONTWRITEBYTECODE = "1"; {p.environment} }};'
        ).replace("APP", str(self.folder))

    def workers(self, grace="100ms"):
        """Whoever does not say READY=1 is ready after @grace."""
        return (
            f'workers: {{ count = 2; soak = "20ms"; start_grace = "{grace}"; start_timeout = "2min"; watchdog = "1min";'
            f" {self.program.workers} }};"
        )

    def target(self):
        return f"/slow?{self.gate.path}"


def installed(name):
    program = next(p for p in PROGRAMS if p.name == name)
    missing = [package for path, package in program.needs if not os.path.exists(path)]
    if missing:
        pytest.skip("not installed: " + ", ".join(missing))
    return program


@pytest.fixture(params=[p.name for p in PROGRAMS])
def deployed(request, tmp_path):
    return Deployed(installed(request.param), tmp_path)


@pytest.fixture
def run(start):
    """A function that starts a musterd with what is deployed. What its workers have started goes with the test, too."""
    with contextlib.ExitStack() as stack:

        def run_program(deployed, **options):
            m = start(deployed.workers(**options), app=deployed.app(), sockets=[("http", deployed.socket)])
            stack.callback(end_all, m)
            return m

        yield run_program


def tree(pid):
    """The process and its descendants, which may have gone when they are looked at."""
    children = {}
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            fields = pathlib.Path(f"/proc/{int(entry)}/stat").read_text().rsplit(")", 1)[1].split()
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def end_all(m):
    if m.status is None:
        m.kill(signal.SIGSTOP)
        for pid in tree(m.pid)[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def pids(m):
    return {w.pid for w in m.worker_processes()}


def stands_still(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has gone
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "TZ"
    return True


def stop_family(pid):
    """Once more than it seems to need: a parent may start a child while it is told."""
    moving = [each for each in tree(pid) if not stands_still(each)]
    for each in moving:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGSTOP)
    return not moving


@contextlib.contextmanager
def stopped(m, workers):
    try:
        m.wait_until(lambda: all([stop_family(pid) for pid in workers]), "the stop of the other workers")
        yield
    finally:
        for pid in workers:
            for each in tree(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)


def check_all_serve(m, count=2):
    """Each worker, or a child of it, answers while the others stand still."""
    workers = pids(m)
    assert len(workers) == count
    for pid in workers:
        with stopped(m, workers - {pid}):
            answer = m.get("/pid")
            assert answer.status == 200
            assert int(answer.body) in tree(pid)


def check_failures(account, allowed):
    """Nothing but the requests that were under way has failed."""
    assert account.answered > 0
    assert account.failures == account.failed["reset"] + account.failed["closed"] <= allowed, str(account)


def test_lifecycle(run, deployed):
    """Under load: a reload, and a worker that is killed. Then a stop that waits for a slow request."""
    m = run(deployed)
    m.wait_ready()
    check_all_serve(m)

    with Load(address_of(deployed.socket), connections=0, fresh=CLIENTS, limit=DEADLINE) as clients:
        clients.wait(50)
        old = m.worker_processes()
        m.kill(signal.SIGHUP)
        m.wait_message("RELOADING=1")
        assert "generation 2" in m.wait_ready()
        for worker in old:
            worker.wait_end()
        clients.wait(50)
        check_failures(clients.stop(), 0 if deployed.program.lossless else CLIENTS * len(old))
    check_all_serve(m)

    with Load(address_of(deployed.socket), connections=0, fresh=CLIENTS, limit=DEADLINE) as clients:
        clients.wait(50)
        victim = m.worker_processes()[0]
        family = [Process(pid) for pid in tree(victim.pid)]
        victim.kill(signal.SIGKILL)
        for process in family:
            process.wait_end()
        m.wait_until(lambda: len(pids(m) - {victim.pid}) == 2, "a new worker")
        clients.wait(50)
        check_failures(clients.stop(), CLIENTS)
    check_all_serve(m)

    with contextlib.closing(m.connect()) as client:
        client.send(f"GET {deployed.target()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        deployed.gate.wait_begun(m)
        m.kill()
        m.wait_message("STOPPING=1")
        m.wait_until(lambda: len(pids(m)) == 1, "the end of the worker that has nothing to do")
        deployed.gate.release()
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"hello\n")
    assert m.wait_exit() == 0
    assert "did not finish" not in m.stderr()
    assert deployed.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_bad_deploy(run, deployed):
    """At the start musterd ends with the reason; at a reload the old workers serve on."""
    m = run(deployed)
    m.wait_ready()
    check_all_serve(m)  # so they have loaded it
    before = pids(m)
    deployed.spoil()
    m.write_config(deployed.workers(grace="1min"))
    m.kill(signal.SIGHUP)
    m.wait_message("RELOADING=1")
    assert "generation 1; reload failed: worker " in m.wait_ready()
    m.wait_until(lambda: pids(m) == before, "the end of the new worker")
    check_all_serve(m)
    m.kill()
    assert m.wait_exit() == 0

    m = run(deployed, grace="1min")
    assert m.wait_exit() == 1
    assert 'The app "web" cannot start: worker ' in m.stderr()


@pytest.mark.parametrize("name", ["gunicorn", "uvicorn-serve", "puma", "nginx"])
def test_unix_socket_stays(run, tmp_path, name):
    """None of them removes the file of a socket that is not its own, or makes the socket deaf."""
    deployed = Deployed(installed(name), tmp_path, listener=unix(tmp_path / "sock"))
    m = run(deployed)
    m.wait_ready()
    check_all_serve(m)
    m.kill()
    assert m.wait_exit() == 0
    with contextlib.closing(m.connect()):
        pass


def shell(tmp_path, script):
    """The Python program, started by a shell."""
    return Deployed(dataclasses.replace(installed("python"), command=f'"/bin/sh", "-c", "{script}"'), tmp_path)


def test_shell_wrapper(run, tmp_path):
    """LISTEN_PID names the shell, and its child finds no socket: the log says so, and what helps, once for each worker."""
    deployed = shell(tmp_path, "/usr/bin/python3 says_ready.py; true")
    (deployed.folder / "says_ready.py").write_text(
        "import os, signal, socket\n"
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\n"
        "signal.pause()\n"
    )
    m = run(deployed)
    m.wait_ready()
    for slot, worker in enumerate(sorted(m.worker_processes(), key=lambda w: int(w.environment()["MUSTER_WORKER"])), 1):
        said = (
            f"Worker {slot} (pid {worker.pid}) is a shell, {os.path.realpath('/bin/sh')}, which has LISTEN_PID for itself: what "
            'it starts does not find its sockets. Let it "exec" the program, or do without it.'
        )
        wait_said(m, said)
        assert m.stderr().count(said) == 1
    m.kill()
    assert m.wait_exit() == 0


def test_shell_whose_program_gave_up(run, tmp_path):
    """As a rule a program that finds no sockets ends: there is no shell to be seen any more, but there was one."""
    m = run(shell(tmp_path, "/usr/bin/python3 -c 'raise SystemExit(3)'; exit 3"))
    assert m.wait_exit() == 1
    assert "was a shell, which has LISTEN_PID for itself" in m.stderr()


def test_shell_that_becomes_the_program(run, tmp_path):
    """With exec the shell is none any more: all is well, and nothing is said."""
    m = run(shell(tmp_path, "cd . && exec /usr/bin/python3 listen.py"))
    m.wait_ready()
    check_all_serve(m)
    assert " a shell" not in m.stderr()
