# SPDX-License-Identifier: MIT
"""Starts a real muster-worker the way musterd does, and talks to it.

The harness is the master: it makes the board (a memfd), the bell (an eventfd), the listening sockets and, if wanted, the
channel. Readiness is told by the bell, an exit by a pidfd; nothing here sleeps.
"""

import contextlib
import fcntl
import os
import pathlib
import select
import signal
import socket
import struct
import time

BUILD_DIR = pathlib.Path(os.environ.get("MUSTER_BUILD_DIR", pathlib.Path(__file__).resolve().parents[2] / "build"))
BINARY = pathlib.Path(os.environ.get("MUSTER_WORKER_BINARY", BUILD_DIR / "src/worker/muster-worker"))

CELL_SIZE = 1024  # BoardCell, board/board.h
CELLS = 1024
SEATS, SEAT_SIZE = 64, 64  # behind the cells
CLAIMS_SIZE = 2048 * 8  # behind the seats, board/claims.h
CELL = 7  # any will do
STARTING, READY, DRAINING, LEAVING, SERVING, DISMISSED = range(6)
DEADLINE = 20  # seconds that nothing here may take; a failure, not a measure

HIGH_FD = 100  # where descriptors wait until they are moved to their numbers in the child


def high(fd):
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)


def inheritable():
    """What this process itself was given by whoever started it, beyond the standard streams."""
    with os.scandir("/proc/self/fd") as entries:
        fds = [int(entry.name) for entry in entries]
    for fd in fds:
        with contextlib.suppress(OSError):
            if fd > 2 and os.get_inheritable(fd):
                yield fd


class Answer:
    """One parsed response."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def closes(self):
        return self.headers.get("connection", "").lower() == "close"


class Client:
    """A connection that keeps what it has read too much."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(DEADLINE)
        self.buffer = b""

    def send(self, data):
        self.sock.sendall(data)

    def request(self, target="/", method="GET", version="1.1", headers=(), body=b""):
        lines = [f"{method} {target} HTTP/{version}", "Host: test", *headers, "", ""]
        self.send("\r\n".join(lines).encode("latin-1") + body)
        return self.answer(head=method == "HEAD")

    def fill(self):
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def answer(self, head=False):
        while b"\r\n\r\n" not in self.buffer:
            if not self.fill():
                raise EOFError(self.buffer)
        head_text, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head_text.decode("latin-1").split("\r\n")
        assert lines[0].startswith("HTTP/1.1 "), lines[0]
        status = int(lines[0].split(" ")[1])
        headers = {}
        for line in lines[1:]:
            name, value = line.split(": ", 1)
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        size = 0 if head or status == 304 else int(headers["content-length"])
        while len(self.buffer) < size:
            if not self.fill():
                raise EOFError(f"{len(self.buffer)} of {size} bytes")
        body, self.buffer = self.buffer[:size], self.buffer[size:]
        return Answer(status, headers, body)

    def at_end(self):
        """True when the server closed without another byte and without a reset."""
        return self.buffer == b"" and self.sock.recv(1) == b""

    def close(self):
        self.sock.close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Worker:
    def __init__(self, directory, *options, unix_path=None, environment=None, wrapper=(), backlog=2048, channel=False, state=STARTING):
        self.unix_path = unix_path
        self.listeners = [socket.create_server(("127.0.0.1", 0), backlog=backlog)]
        if unix_path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(str(unix_path))
            sock.listen(64)
            self.listeners.append(sock)
        for sock in self.listeners:
            sock.setblocking(False)
        self.address = self.listeners[0].getsockname()
        self.board = os.memfd_create("board")
        os.ftruncate(self.board, CELLS * CELL_SIZE + SEATS * SEAT_SIZE + CLAIMS_SIZE)
        os.pwrite(self.board, struct.pack("=I", state), CELL * CELL_SIZE)
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.channel, self.has_channel = None, channel
        self.status, self.index = None, CELL
        self.argv = [*map(str, wrapper), str(BINARY), f"--directory={directory}", *options]
        self.pid = self._spawn(environment or {})
        self.pidfd = os.pidfd_open(self.pid)

    def sibling(self):
        """Another worker on the same sockets, in a cell of its own."""
        other = Worker.__new__(Worker)
        other.__dict__.update(self.__dict__)
        other.listeners = [sock.dup() for sock in self.listeners]
        other.board, other.bell = os.dup(self.board), os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        other.status, other.index = None, self.index + 1
        other.pid = other._spawn({"MUSTER_WORKER": "4", "MUSTER_BOARD_CELL": str(other.index)})
        other.pidfd = os.pidfd_open(other.pid)
        return other

    def environment(self):
        n = len(self.listeners)
        return {
            "PATH": os.environ["PATH"],
            "MUSTER_APP": "default",
            "MUSTER_WORKER": "3",
            "MUSTER_GENERATION": "5",
            "LISTEN_FDS": str(n),
            "LISTEN_FDNAMES": ":".join(["http"] * n),
            "MUSTER_BOARD_FD": str(3 + n),
            "MUSTER_BELL_FD": str(4 + n),
            "MUSTER_BOARD_CELL": str(CELL),
            **({"MUSTER_CHANNEL_FD": str(5 + n)} if self.has_channel else {}),
            **{k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")},
        }

    def _spawn(self, changes):
        env = {**self.environment(), **changes}
        env = {k: v for k, v in env.items() if v is not None}
        fds = [high(fd) for fd in [*(s.fileno() for s in self.listeners), self.board, self.bell]]
        if self.has_channel:
            self.channel, theirs = socket.socketpair()
            fds.append(high(theirs.fileno()))
            theirs.close()
        actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in inheritable()]
        actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + i) for i, fd in enumerate(fds)]
        try:
            return os.posix_spawnp(self.argv[0], self.argv, env, file_actions=actions)
        finally:
            for fd in fds:
                os.close(fd)

    def cell(self):
        """state, connections, accepted, requests"""
        return struct.unpack("=IIQQ", os.pread(self.board, 24, self.index * CELL_SIZE))

    def beats(self):
        return struct.unpack("=Q", os.pread(self.board, 8, self.index * CELL_SIZE + 24))[0]

    def reason(self):
        return os.pread(self.board, 184, self.index * CELL_SIZE + 32).split(b"\0", 1)[0].decode()

    def processes(self):
        """Who serves, and who waits for its end: of a worker that has a keeper, which is self.pid; 0: nobody."""
        return struct.unpack("=ii", os.pread(self.board, 8, self.index * CELL_SIZE + 216))

    @property
    def serving(self):
        return self.processes()[0] or self.pid

    def takeovers(self):
        return struct.unpack("=I", os.pread(self.board, 4, self.index * CELL_SIZE + 224))[0]

    def wait_twin(self):
        self.wait_until(lambda: all(self.processes()))
        return self

    def kill_serving(self, signo=signal.SIGKILL):
        """Until another one serves."""
        n = self.takeovers()
        self.wait_until(lambda: self.processes()[0])
        os.kill(self.serving, signo)
        self.wait_until(lambda: self.takeovers() > n)

    @property
    def state(self):
        return self.cell()[0]

    @property
    def connections(self):
        return self.cell()[1]

    def wait_state(self, state):
        while self.state != state:
            ready, _, _ = select.select([self.bell, self.pidfd], [], [], DEADLINE)
            assert ready, "the bell did not ring"
            if self.bell in ready:
                os.eventfd_read(self.bell)
            elif self.state != state:
                raise AssertionError(f"the worker exited: {self.wait_exit()}")
        return self

    def probe(self):
        self.channel.sendall(b'{"cmd":"MUSTER","act":"probe"}\n')

    def wait_beats(self, n):
        """Until it has beaten so many times since the start; at least so many."""
        self.wait_until(lambda: self.beats() >= n)

    def wait_asleep(self, pid=None):
        """Until it waits for events."""
        waits = ("232", "281", "441")  # epoll_wait, epoll_pwait, epoll_pwait2
        self.wait_until(lambda: pathlib.Path(f"/proc/{pid or self.serving}/syscall").read_text().split()[0] in waits)

    def switches(self):
        """How often it was woken up, and how often it was interrupted."""
        text = pathlib.Path(f"/proc/{self.serving}/status").read_text()
        return [int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line]

    def wait_exit(self):
        """The exit code; negative: the signal."""
        if self.status is None:
            ready, _, _ = select.select([self.pidfd], [], [], DEADLINE)
            assert ready, "the worker did not exit"
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait_until(self, condition):
        """For what has no event of its own, such as a counter on the board."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            select.select([self.pidfd], [], [], 0.002)

    def kill(self, signo=signal.SIGTERM):
        """Of those that stop or go on, who serves."""
        if signo in (signal.SIGSTOP, signal.SIGCONT):
            os.kill(self.serving, signo)
        else:
            signal.pidfd_send_signal(self.pidfd, signo)

    def stop(self):
        pid = self.serving
        self.kill(signal.SIGSTOP)
        self.wait_until(lambda: self._field(pid, "State") == "T")

    def _field(self, pid, name):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return line.split()[1]
        raise KeyError(name)

    @contextlib.contextmanager
    def stopped(self):
        """What happens in the block it finds together when it goes on, as if it had happened in one moment."""
        self.stop()
        yield
        self.kill(signal.SIGCONT)

    def retire_stopped(self):
        """The order to drain, in such a block: the keeper has passed it on."""
        pid = self.serving
        self.kill(signal.SIGTERM)
        self.wait_until(lambda: int(self._field(pid, "ShdPnd"), 16) >> (signal.SIGTERM - 1) & 1)

    def connect(self, unix=False, rcvbuf=None):
        sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.settimeout(DEADLINE)
        sock.connect(str(self.unix_path) if unix else self.address)
        return Client(sock)

    def get(self, target="/", **kwargs):
        with contextlib.closing(self.connect()) as client:
            return client.request(target, **kwargs)

    def raw(self, data):
        """Sends bytes and returns the one answer, after which the server must close."""
        with contextlib.closing(self.connect()) as client:
            client.send(data)
            answer = client.answer()
            assert answer.closes and client.at_end()
            return answer

    def fds(self):
        return sorted(os.listdir(f"/proc/{self.pid}/fd"), key=int)

    def smaps(self, field):
        for line in pathlib.Path(f"/proc/{self.serving}/smaps_rollup").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise KeyError(field)

    def cpu_ticks(self):
        """User and system time, in 1/100 s: a busy loop takes one tick after the other."""
        return sum(map(int, pathlib.Path(f"/proc/{self.serving}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))

    def close(self):
        if self.status is None:
            self.kill(signal.SIGKILL)
            self.wait_exit()
        for sock in [*self.listeners, *([self.channel] if self.channel else [])]:
            sock.close()
        for fd in (self.board, self.bell, self.pidfd):
            os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


# What runs between the harness and the worker in some tests: `python3 worker_harness.py MODE… -- ARGV`.

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38


def prctl(*args):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*(ctypes.c_ulong(a) if isinstance(a, int) else a for a in args)) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def without_openat2(error):
    """Installs the filter that RestrictSUIDSGID= would: openat2 fails with @error."""
    import ctypes

    openat2 = 437
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 0),  # load the number of the call
            (0x15, 0, 1, openat2),  # unless it is this one, go over the next
            (0x06, 0, 0, 0x00050000 | error),  # SECCOMP_RET_ERRNO
            (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        )
    )
    text = ctypes.create_string_buffer(program)
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text)))
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    prctl(PR_SET_SECCOMP, 2, ctypes.byref(fprog))


def wrapper(*mode):
    import sys

    return (sys.executable, __file__, *map(str, mode), "--")


def main(argv):
    split = argv.index("--")
    mode, command = argv[:split], argv[split + 1 :]
    if mode[0] == "without-openat2":
        without_openat2(int(mode[1]))
    elif mode[0] == "nofile":
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (int(mode[1]), int(mode[2])))
    elif mode[0] == "master":  # stays as the parent, until it is killed
        if os.fork():
            os.wait()
            return
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    os.execvp(command[0], command)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
