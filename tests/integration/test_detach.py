# SPDX-License-Identifier: MIT
"""musterd --detach: the command returns when the service is ready or has failed, and the service holds nothing of its caller."""

import contextlib
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import subprocess

import pytest
from harness import WORKER_DIR, Master, Process, tcp, unix, wait_readable
from worker_harness import DEADLINE, Client

GATED = "open(os.environ['GATE']).read()\nreal(REAL)\n"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="the master's files in /proc are root's, as it is not dumpable")


def stat_of(pid):
    """parent, process group, session, controlling terminal (0: none)"""
    return [int(n) for n in pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1:5]]


def children(parent, name=None):
    """The processes that are the parent's children, of that name, and have not ended."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if stat_of(entry)[0] == parent and name in (None, pathlib.Path(f"/proc/{entry}/comm").read_text().strip()):
                    found.append(Process(int(entry)))
    return [process for process in found if not process.ended()]


def services(parent):
    return children(parent, "musterd")


class Detached(Master):
    """The command; after detached() the service, which is a child of this process then: it is a subreaper."""

    def __init__(self, *args, wrapper=(), arguments=(), worker=None, environment=None, **kwargs):
        self.wrapper = wrapper
        super().__init__(*args, worker=worker, environment=environment, arguments=("--detach", *arguments), **kwargs)

    def _spawn(self, *args):
        self.argv = [*map(str, self.wrapper), *self.argv]
        self.env.setdefault("GATE", str(self.dir / "gate"))
        os.mkfifo(self.env["GATE"])
        return super()._spawn(*args)

    def open_gate(self):
        """Lets the one worker through that waits, or will wait, at the gate."""
        with open(self.env["GATE"], "w"):
            pass

    def service(self):
        """Its process, while the command waits."""
        (service,) = services(self.pid)
        return service

    def detached(self):
        assert self.wait_exit() == 0, self.stderr()
        (self.process,) = services(os.getpid())
        self.pid, self.pidfd, self.status = self.process.pid, self.process.pidfd, None
        return self

    def close(self):
        """A test that failed may have left a service, here or with the command."""
        left = services(self.pid) + [process for process in services(os.getpid()) if process.pid != self.pid]
        left += [worker for process in left for worker in children(process.pid)]
        for process in left:
            process.kill(signal.SIGKILL)
        for process in left:
            process.wait_end()
        super().close()


@pytest.fixture
def start():
    """A function that starts the command."""
    with contextlib.ExitStack() as stack:

        def start_command(*args, **kwargs):
            master = Detached(*args, **kwargs)
            stack.callback(master.close)
            return master

        yield start_command


@pytest.fixture
def waiting(start):
    """Likewise, and when the function returns the service is there, its workers wait at the gate, and the command for them."""

    def start_waiting(workers=1, **kwargs):
        m = start(f'workers: {{ count = {workers}; start_timeout = "1h"; }};', worker=GATED, **kwargs)
        m.wait_status(f"Starting: 0/{workers} workers ready")
        return m

    return start_waiting


@pytest.fixture
def terminal():
    """A terminal: (the end of whoever sits at it, a wrapper that makes the command the leader of its session)."""
    if not shutil.which("setsid"):
        pytest.skip("setsid is not installed")
    near, far = pty.openpty()
    with os.fdopen(near, "r+b", buffering=0) as end, os.fdopen(far, "r+b", buffering=0):
        yield end, ("/bin/sh", "-c", 'exec setsid --ctty "$@" <>"$0" >&0 2>&0', os.ttyname(far))


def collected(start, *args, **kwargs):
    """Starts a command and reads its output to the end: (it, the text)."""
    r, w = os.pipe()
    with os.fdopen(r, "rb", buffering=0) as reader:
        m = start(*args, stderr=w, **kwargs)
        os.close(w)
        text = b""
        while wait_readable([reader], "output or its end"):
            data = reader.read(65536)
            if not data:
                return m, text.decode()
            text += data


def get(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(str(path))
        return Client(sock).request("/").body


def test_returns_when_it_answers(start, tmp_path):
    """Status 0, nothing is printed, the sockets of the configuration answer; and whoever reads the output reaches its end."""
    m, output = collected(start, f'listen: ( {{ address = "{tmp_path}/s"; }} );', sockets=[])
    m.detached()
    assert get(tmp_path / "s") == b"hello\n"
    assert output == ""
    m.kill()
    assert m.wait_exit() == 0
    assert not (tmp_path / "s").exists()


def test_waits_for_the_last_worker(start):
    """The command is there until all are ready and READY=1 was said, and no longer."""
    m = start(worker=f"if SLOT == 1:\n    real(REAL)\n{GATED}", workers=2)
    m.wait_status("Starting: 1/2 workers ready")
    assert not m.process.ended()
    m.open_gate()
    m.detached()
    m.wait_ready()
    assert m.get().status == 200


def test_own_session(start):
    """A session and a process group of its own, no terminal, the working directory /; an adopted child."""
    m = start().detached()
    assert stat_of(m.pid) == [os.getpid(), m.pid, m.pid, 0]
    for worker in m.worker_processes():
        assert stat_of(worker.pid)[2:] == [m.pid, 0]
        assert os.readlink(f"/proc/{worker.pid}/cwd") == "/"
        assert [worker.fds()[fd] for fd in (0, 1, 2)] == ["/dev/null", str(m.stderr_file), str(m.stderr_file)]


@root_only
def test_holds_nothing(start):
    """No descriptor that the caller had open but the sockets it passed, and no stream."""
    m, _ = collected(start, stray=4, wrapper=("/bin/sh", "-c", 'exec "$0" "$@" </bin/sh'))
    m.detached()
    fds = m.process.fds()
    assert [fds.pop(n) for n in (0, 1, 2)] == ["/dev/null"] * 3
    assert "/dev/null" not in fds.values() and not any(target.startswith("pipe:") for target in fds.values())
    assert os.readlink(f"/proc/{m.pid}/cwd") == "/"


def test_passed_sockets(start, tmp_path):
    """LISTEN_FDS for the command are for the service, in order and by name."""
    m = start(sockets=[("http", tcp()), ("local", unix(tmp_path / "s"))], stray=2)
    m.detached()
    assert m.get(name="http").body == m.get(name="local").body == b"hello\n"
    assert m.worker_processes()[0].environment()["LISTEN_FDNAMES"] == "http:local"


def test_watchdog(start):
    """The watchdog that was set for the command is the service's."""
    m = start(watchdog_usec=200_000).detached()
    m.wait_ready()
    for _ in range(3):
        m.wait_message("WATCHDOG=1")


def test_umask(start):
    """Stays as the caller's."""
    m = start(wrapper=("/bin/sh", "-c", 'umask 0027 && exec "$0" "$@"')).detached()
    assert "\nUmask:\t0027\n" in pathlib.Path(f"/proc/{m.pid}/status").read_text()


def test_relative_paths(start):
    """Of the configuration, for a reload too, and of the programs."""
    script = 'cd "${NOTIFY_SOCKET%/*}" && mkdir sub && ln -s "$0" libexec && exec "$@"'
    m = start(command=["sub/../web.conf"], environment={"MUSTER_LIBEXECDIR": "libexec"},
              wrapper=("/bin/sh", "-c", script, WORKER_DIR.resolve()))
    m.detached()
    m.wait_ready()
    m.write_config(workers=3)
    m.kill(signal.SIGHUP)
    m.wait_status("3/3 workers ready, 0 connections, generation 2")


def test_configuration_from_stdin(start):
    """Is read before stdin is let go."""
    m = start(command=["-c", "/dev/stdin", "web"], wrapper=("/bin/sh", "-c", 'exec "$0" "$@" <"${NOTIFY_SOCKET%/*}/web.conf"'))
    m.detached()
    assert m.get().body == b"hello\n"


# Failures


def test_invalid_configuration(start):
    """Status 2, and the reason reaches the caller."""
    m, output = collected(start, "http: { max_connections = 0; };")
    assert m.wait_exit() == 2
    assert f"{m.config_file}:" in output and "http.max_connections: found 0" in output


def test_missing_configuration(start, tmp_path):
    m, output = collected(start, command=[str(tmp_path / "gone.conf")])
    assert m.wait_exit() == 2
    assert output.endswith(f"{tmp_path}/gone.conf: cannot open: No such file or directory\n")


def test_busy_port(start):
    """Status 1."""
    with contextlib.closing(tcp()) as busy:
        address = "127.0.0.1:%d" % busy.getsockname()[1]
        m, output = collected(start, f'listen: ( {{ address = "{address}"; }} );', sockets=[])
        assert m.wait_exit() == 1
    assert f'cannot listen on "{address}" for "http": Address already in use\n' in output


def test_worker_that_cannot_be_executed(start):
    m, output = collected(start, environment={"MUSTER_LIBEXECDIR": "/nonexistent"})
    assert m.wait_exit() == 1
    assert 'The app "web" cannot start: worker 1 cannot be started: No such file or directory\n' in output


def test_worker_that_dies(start):
    """What it told the master is told to the caller; nothing is left."""
    m, output = collected(start, worker="set_reason('out of luck')\nsys.exit(7)\n")
    assert m.wait_exit() == 1
    assert "The app \"web\" cannot start: worker " in output and "exited with status 7: out of luck\n" in output
    assert not services(os.getpid())


def test_reason_for_nobody(start):
    """Nobody reads stderr: the status is the same."""
    r, w = os.pipe()
    os.close(r)
    m = start("http: { max_connections = 0; };", stderr=w)
    os.close(w)
    assert m.wait_exit() == 2


@pytest.mark.parametrize("signo, text", [
    (signal.SIGKILL, "Before it was ready, the service was killed by signal 9, SIGKILL.\n"),
    (signal.SIGTERM, "Before it was ready, the service was stopped.\n"),
])
def test_service_ends_while_starting(waiting, signo, text):
    """By a signal to it: that is a failure, and the command says what happened."""
    m = waiting()
    m.service().kill(signo)
    assert m.wait_exit() == 1
    assert m.stderr().endswith(text)


def test_child_signals_ignored(start):
    """Who ignores SIGCHLD, and passes that on, gets the status as well."""
    ignore = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    m = start("http: { max_connections = 0; };", wrapper=("/usr/bin/python3", "-c", ignore))
    assert m.wait_exit() == 2


# Signals to the command


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_while_starting(waiting, signo):
    """The service and its workers have ended when the command has, by that very signal."""
    m = waiting(workers=2)
    service = m.service()
    workers = children(service.pid)
    assert len(workers) == 2
    m.kill(signo)
    assert m.wait_exit() == -signo
    assert "Before it was ready" not in m.stderr()
    assert service.ended() and all(w.ended() for w in workers)


def test_second_interrupt(start):
    """^C again: workers that will not go are killed, as in the foreground."""
    m = start(worker="signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif SLOT == 1:\n    set_state(READY)\nwait_for_ever()\n")
    m.wait_status("Starting: 1/2 workers ready")
    m.kill(signal.SIGINT)
    m.wait_message("STOPPING=1")
    assert not m.process.ended()
    m.kill(signal.SIGINT)
    assert m.wait_exit() == -signal.SIGINT


def test_ignored_signal(waiting):
    """nohup: the end of the terminal is to change nothing."""
    m = waiting(wrapper=("/bin/sh", "-c", "trap '' HUP; exec \"$0\" \"$@\""))
    m.kill(signal.SIGHUP)
    m.open_gate()
    m.detached()
    assert m.get().status == 200


def test_ready_and_told_to_end(waiting):
    """Both at once: the command dies of the signal, so there is no service."""
    m = waiting()
    service = m.service()
    m.kill(signal.SIGSTOP)
    m.open_gate()
    m.wait_ready()
    m.kill(signal.SIGTERM)
    m.kill(signal.SIGCONT)
    assert m.wait_exit() == -signal.SIGTERM
    assert service.ended()


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGQUIT])
def test_command_is_killed(waiting, signo):
    """It cannot tell anybody any more that it succeeded: the service ends."""
    m = waiting()
    service = m.service()
    m.kill(signo)
    assert m.wait_exit() == -signo
    service.wait_end()


# The terminal


def test_terminal_goes_away(start, terminal):
    """The service has nothing to do with it any more."""
    near, wrapper = terminal
    m = start(wrapper=wrapper).detached()
    m.wait_ready()
    assert stat_of(m.pid)[3] == 0
    assert not any("/dev/pts" in target for w in m.worker_processes() for target in w.fds().values())
    assert not select.select([near], [], [], 0)[0]  # silent
    near.close()
    assert m.get().status == 200
    m.worker_processes()[0].kill(signal.SIGKILL)  # of which it says something
    m.wait_status("2/2 workers ready, 0 connections, generation 1")
    assert m.get().status == 200


def test_terminal_goes_away_while_starting(waiting, terminal):
    """The hangup ends the command, and so the service."""
    near, wrapper = terminal
    m = waiting(wrapper=wrapper)
    service = m.service()
    near.close()
    assert m.wait_exit() == -signal.SIGHUP
    assert service.ended()


def test_interrupt_key(waiting, terminal):
    """^C at the keyboard."""
    near, wrapper = terminal
    m = waiting(wrapper=wrapper)
    service = m.service()
    near.write(b"\x03")
    assert m.wait_exit() == -signal.SIGINT
    assert service.ended()


def test_error_on_a_terminal(start, terminal):
    """Is seen there."""
    near, wrapper = terminal
    m = start("http: { max_connections = 0; };", wrapper=wrapper)
    assert m.wait_exit() == 2
    text = b""
    while b"http.max_connections: found 0" not in text:  # the kernel may hand it over bit by bit, and later
        wait_readable([near], "the reason")
        text += near.read(65536)


# Messages


def test_file_is_a_log(start):
    """stderr that is a file stays: all messages go there, each once, also after the command."""
    m = start().detached()
    m.wait_ready()
    worker = m.worker_processes()[0]
    worker.kill(signal.SIGKILL)
    m.wait_status(lambda text: text.startswith("2/2 workers ready"))
    log = m.stderr()
    assert log.count("Serving web with 2 workers.\n") == 1
    assert log.count(f"(pid {worker.pid}) was killed by signal 9, SIGKILL.\n") == 1


def test_file_gets_the_reason_once(start):
    m = start("http: { max_connections = 0; };")
    assert m.wait_exit() == 2
    assert m.stderr().count("http.max_connections: found 0") == 1


@pytest.fixture
def journal(tmp_path):
    """The journal's sockets where nothing but the command sees them: (streams, messages, wrapper)."""
    mount = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    folder = tmp_path / "run/systemd/journal"
    folder.mkdir(parents=True)
    with unix(folder / "stdout") as streams, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messages:
        messages.bind(str(folder / "socket"))
        script = f'exec {" ".join(mount)} sh -c \'mount --bind "$0" /run && exec "$@"\' "$0" "$@"'
        yield streams, messages, ("/bin/sh", "-c", script, tmp_path / "run")


def heard(messages):
    """All messages so far, each as a dict of its one-line fields."""
    found = []
    while select.select([messages], [], [], 0)[0]:
        lines = messages.recv(65536).decode().splitlines()
        found.append(dict(line.split("=", 1) for line in lines if "=" in line))
    return found


def stream_name(streams):
    """Takes the next stream; its first line is the identifier."""
    wait_readable([streams], "a stream")
    with streams.accept()[0] as stream:
        return stream.recv(4096).split(b"\n")[0].decode()


def test_journal(start, journal):
    """With a journal the messages go there, with their fields, and the streams of the master and the workers."""
    streams, messages, wrapper = journal
    m, output = collected(start, wrapper=wrapper)
    m.detached()
    assert output == ""
    (ready,) = [fields for fields in heard(messages) if fields["MESSAGE"] == "Serving web with 2 workers."]
    assert ready["MUSTER_APP"] == "web" and ready["SYSLOG_IDENTIFIER"] == "musterd"
    assert {stream_name(streams) for _ in range(3)} == {"musterd", "web-1", "web-2"}


def test_stream_of_the_journal_is_kept(start, journal):
    """Type=forking: systemd made stderr a stream of the journal already."""
    streams, messages, wrapper = journal
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            st = os.fstat(theirs.fileno())
            environment = {"JOURNAL_STREAM": f"{st.st_dev}:{st.st_ino}"}
            m = start(wrapper=wrapper, stderr=theirs.fileno(), environment=environment).detached()
        assert any(fields["MESSAGE"] == "Serving web with 2 workers." for fields in heard(messages))
        assert {stream_name(streams) for _ in range(2)} == {"web-1", "web-2"}
        assert not select.select([streams, ours], [], [], 0)[0]  # no stream of the master's own; the old one is held
    assert m.get().status == 200


def test_journal_and_caller(start, journal):
    """The reason of a failed start goes to both: to the journal by the stream, and with its fields as an event."""
    streams, messages, wrapper = journal
    m, output = collected(start, "http: { max_connections = 0; };", wrapper=wrapper)
    assert m.wait_exit() == 2
    assert "http.max_connections: found 0" in output
    with streams.accept()[0] as stream:
        said = b"".join(iter(lambda: stream.recv(4096), b"")).decode()
    assert re.search("^<3>.*http.max_connections: found 0", said, re.MULTILINE)
    (event,) = heard(messages)
    assert event["MESSAGE"] == "The app cannot start." and event["MUSTER_APP"] == "web" and event["MESSAGE_ID"]


def test_file_is_preferred_to_the_journal(start, journal):
    streams, messages, wrapper = journal
    m = start(wrapper=wrapper).detached()
    assert "Serving web with 2 workers.\n" in m.stderr()
    assert not heard(messages)


# Without a start


@pytest.mark.parametrize("option, text", [("--check", "web.conf: valid\n"), ("--print-config", "  count = 2;\n")])
def test_nothing_to_detach(start, option, text):
    """--check and --print-config start nothing, in the background neither."""
    m, output = collected(start, arguments=[option])
    assert m.wait_exit() == 0
    assert text in output
    assert not services(os.getpid())
