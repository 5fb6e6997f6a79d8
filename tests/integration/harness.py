# SPDX-License-Identifier: MIT
"""Starts a real musterd the way systemd does, and listens to what it tells systemd.

The harness is systemd: it opens the sockets, sets LISTEN_FDS, and reads NOTIFY_SOCKET. Everything is waited for by its
event: a notification, a pidfd, the end of a stream. Nothing here sleeps. Orphans come to this process (it is a subreaper), so
that it can wait for their end.
"""

import contextlib
import ctypes
import json
import mmap
import os
import pathlib
import select
import shutil
import signal
import socket
import stat
import struct
import tempfile
import threading
import time

from worker_harness import BUILD_DIR, CELL_SIZE, CELLS, DEADLINE, Client, high, inheritable

MUSTERD = BUILD_DIR / "src/master/musterd"
MUSTER_EXEC = BUILD_DIR / "src/exec/muster-exec"
RETIRE_ON_UNCAUGHT = pathlib.Path(__file__).resolve().parents[2] / "src/node/retire-on-uncaught.js"
MUSTER_ADMIN = BUILD_DIR / "src/admin/muster-admin"
MUSTER = BUILD_DIR / "src/cli/muster"
WORKER_DIR = BUILD_DIR / "src/worker"
BOARD_SIZE = CELLS * CELL_SIZE
WORKER_PID_OFFSET = 216
PR_SET_CHILD_SUBREAPER = 36

ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

# Ignored is inherited, and a shell ignores these for what it starts in its background.
for signo in signal.SIGINT, signal.SIGQUIT:
    if signal.getsignal(signo) == signal.SIG_IGN:
        signal.signal(signo, signal.SIG_DFL)


def tcp(host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, backlog=1024)


def unix(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(1024)
    return sock


def wait_readable(fds, what, timeout=DEADLINE):
    poll = select.poll()
    fds = {fd if isinstance(fd, int) else fd.fileno(): fd for fd in fds}
    for fd in fds:
        poll.register(fd, select.POLLIN)
    ready = [fds[fd] for fd, _ in poll.poll(timeout * 1000)]
    assert ready, f"{what}: did not happen within {timeout} s"
    return ready


class Process:
    """Some process, watched by a pidfd: a worker, which is not our child. `master`: to listen to while it is waited for."""

    def __init__(self, pid, master=None):
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.master = master

    def __del__(self):
        if hasattr(self, "pidfd"):
            os.close(self.pidfd)

    def kill(self, signo):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signo)

    def ended(self):
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def wait_end(self, timeout=DEADLINE):
        end = time.monotonic() + timeout
        heard = [self.master.notify_socket] if self.master else []
        while self.pidfd not in wait_readable([self.pidfd, *heard], f"the end of {self.pid}", max(end - time.monotonic(), 0)):
            self.master._receive()

    def environment(self):
        data = pathlib.Path(f"/proc/{self.pid}/environ").read_bytes()
        return dict(item.split("=", 1) for item in data.decode().split("\0") if item)

    def children(self):
        found = []
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for pid in pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                found.append(Process(int(pid), self.master))
        return found

    def fds(self):
        """Number to target, such as {0: "/dev/null"}. One may be closed while it is looked at."""
        found = {}
        for p in pathlib.Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[int(p.name)] = os.readlink(p)
        return found

    def switches(self):
        """Voluntary context switches of all threads: how often it was woken up."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
        return total

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Master:
    """musterd NAME.conf in a directory of its own. `sockets`: (name, socket) pairs to pass; None: LISTEN_FDS is not set."""

    def __init__(self, config="", sockets=None, workers=2, name="web", worker=None, environment=None, affinity=None,
                 stray=0, notify=True, watchdog_usec=None, arguments=(), command=None, directory=None, stderr=None, uid=None,
                 admin_options="", app=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="muster-"))
        self.site = self.dir / "site"
        self.site.mkdir()
        (self.site / "index.html").write_text("hello\n")
        self.config_file = self.dir / f"{name}.conf"
        self.socket_list = sockets if sockets is not None else [("http", tcp())]
        self.pass_sockets = sockets != []
        self.workers = workers
        self.app = app
        self.has_agents = "agents:" in config
        self.write_config(config, directory=directory)
        self.messages = []
        self.receiving = threading.Lock()
        self.seen = 0
        self.notify_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify_socket.bind(str(self.dir / "notify"))
        self.stderr_file = self.dir / "stderr"
        self.status = None
        self.env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG") or k.endswith("SAN_OPTIONS")}
        # with a sanitizer, a signal is still to end a worker, and not a report
        own = "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0"
        self.env["ASAN_OPTIONS"] = ":".join(filter(None, (self.env.get("ASAN_OPTIONS"), own)))
        self.env["MUSTER_LIBEXECDIR"] = str(self.libexec_dir(worker, admin_options))
        if notify:
            self.env["NOTIFY_SOCKET"] = str(self.dir / "notify")
        if watchdog_usec:
            self.env["WATCHDOG_USEC"] = str(watchdog_usec)
        self.env.update(environment or {})
        self.argv = [str(MUSTERD), *arguments, *(command or [str(self.config_file)])]
        self.pid = self._spawn(affinity, stray, watchdog_usec, stderr, uid)
        self.process = Process(self.pid)
        self.pidfd = self.process.pidfd

    def write_config(self, text="", workers=None, directory=None, whoami=True, app=None):
        """@app, here or at the start: the whole group, instead of that of a static site."""
        if app:
            self.app = app
        site = f'directory = "{directory or self.site}"; whoami = {"true" if whoami else "false"};'
        workers = self.workers if workers is None else workers
        count = (f"count = {workers}; " if workers else "") + 'soak = "20ms"; start_timeout = "1min";'
        self.config_file.write_text(
            f"app: {{ {self.app or site} }};\n"
            + (text if "workers:" in text else f"workers: {{ {count} }};\n{text}")
        )

    def libexec_dir(self, worker, admin_options):
        """Where the internal programs are: in the build, a folder for each, so together in one only where more are needed."""
        control = any(name == "control" for name, _ in self.socket_list)
        if not worker and not control and not self.app and not self.has_agents:
            return WORKER_DIR
        folder = self.dir / "libexec"
        folder.mkdir()
        (folder / "muster-exec").symlink_to(MUSTER_EXEC.resolve())
        (folder / RETIRE_ON_UNCAUGHT.name).symlink_to(RETIRE_ON_UNCAUGHT)
        if worker:
            self.write_worker(folder / "muster-worker", worker)
        else:
            (folder / "muster-worker").symlink_to((WORKER_DIR / "muster-worker").resolve())
        if control:
            script = folder / "muster-admin"
            script.write_text(f"#!/bin/sh\nexec {MUSTER_ADMIN.resolve()} {admin_options}\n")
            script.chmod(0o755)
        return folder

    def write_worker(self, script, body):
        """A stand-in for muster-worker: Python lines that use fake_worker.py."""
        script.write_text(
            "#!/usr/bin/python3 -IS\nimport sys\n"
            f"sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\nsys.dont_write_bytecode = True\n"
            f"from fake_worker import *\nREAL = {str(WORKER_DIR / 'muster-worker')!r}\n{body}\n"
        )
        script.chmod(0o755)

    def _spawn(self, affinity, stray, watchdog_usec, stderr, uid):
        socks = self.socket_list if self.pass_sockets else []
        fds = [high(sock.fileno()) for _, sock in socks]
        leaked = list(inheritable())
        err = os.open(self.stderr_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if uid is not None:
            for path in (self.dir, self.site):
                path.chmod(0o755)
            (self.dir / "notify").chmod(0o777)
        if stderr is not None:
            os.dup2(stderr, err, inheritable=False)
        pid = os.fork()
        if pid:
            for fd in (*fds, err):
                os.close(fd)
            return pid
        try:
            null = os.open("/dev/null", os.O_RDWR)
            for i, fd in enumerate((null, err, err)):
                os.dup2(fd, i, inheritable=True)
            for fd in leaked:
                os.close(fd)
            for i, fd in enumerate(fds):
                os.dup2(fd, 3 + i, inheritable=True)
            for i in range(stray):
                os.dup2(null, 50 + 7 * i, inheritable=True)
            if affinity:
                os.sched_setaffinity(0, affinity)
            if socks:
                self.env["LISTEN_FDS"] = str(len(socks))
                self.env.setdefault("LISTEN_FDNAMES", ":".join(name for name, _ in socks))
                self.env["LISTEN_PID"] = str(os.getpid())
            if watchdog_usec:
                self.env.setdefault("WATCHDOG_PID", str(os.getpid()))
            for signo in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
                signal.signal(signo, signal.SIG_DFL)
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            os.execve(self.argv[0], self.argv, self.env)
        finally:
            os._exit(126)

    # Notifications

    def _receive(self):
        with self.receiving, contextlib.suppress(BlockingIOError):  # clients in threads do so too
            while True:
                data, ancillary, flags, _ = self.notify_socket.recvmsg(65536, 4096, socket.MSG_DONTWAIT)
                assert not flags & socket.MSG_TRUNC and not ancillary
                self.messages.append((time.monotonic(), data.decode()))

    def wait_message(self, wanted, timeout=DEADLINE):
        """The next message, after the last one this returned, that is wanted: one with that line, or one for which it says so."""
        condition = wanted if callable(wanted) else lambda lines: wanted in lines
        end = time.monotonic() + timeout
        while True:
            self._receive()
            while self.seen < len(self.messages):
                when, text = self.messages[self.seen]
                self.seen += 1
                if condition(text.split("\n")):
                    return text
            if self.process.ended() and self.seen == len(self.messages):
                self._receive()
                if self.seen == len(self.messages):
                    raise AssertionError(f"musterd has ended with {self.wait_exit()}: {self.stderr()}")
                continue
            rest = end - time.monotonic()
            heard = [text for _, text in self.messages]
            assert rest > 0, f"no such message; heard: {heard}\n{self.stderr()}"
            select.select([self.notify_socket, self.pidfd], [], [], min(rest, 0.05))  # another thread may have heard it

    def wait_status(self, text, timeout=DEADLINE):
        """Waits for a STATUS of exactly this text, or one for which it says so."""
        condition = text if callable(text) else lambda found: found == text
        return self.wait_message(lambda lines: any(l.startswith("STATUS=") and condition(l[7:]) for l in lines), timeout)

    def wait_ready(self):
        return self.wait_message("READY=1")

    def statuses(self):
        self._receive()
        return [l[7:] for _, text in self.messages for l in text.split("\n") if l.startswith("STATUS=")]

    # Processes

    def kill(self, signo=signal.SIGTERM):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signo)

    def wait_exit(self, timeout=DEADLINE):
        """The exit code; negative: the signal."""
        if self.status is None:
            end = time.monotonic() + timeout
            while not self.process.ended():
                self._receive()  # its queue is short, and the master would wait for a place in it
                assert time.monotonic() < end, f"musterd's end did not happen within {timeout} s; it said: {self.stderr()}"
                select.select([self.notify_socket, self.pidfd], [], [], 0.05)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self._receive()
        return self.status

    def children(self):
        """The pids of its children, in no order."""
        self._receive()  # as systemd does, all the time: a full queue would hold the master up
        pids = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    fields = pathlib.Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                    if int(fields[1]) == self.pid and fields[0] != "Z":
                        pids.append(int(entry))
        return pids

    def _processes(self, wanted):
        found = []
        for pid in sorted(self.children()):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has just gone
                if wanted(pathlib.Path(f"/proc/{pid}/comm").read_text().strip()):
                    found.append(Process(pid, self))
        return found

    def worker_processes(self):
        return self._processes(lambda name: name not in ("muster-admin", "muster-guard"))

    def worker(self):
        """The only one, when what another one has left behind is gone."""
        return self.wait_until(lambda: (found := self.worker_processes()) and len(found) == 1 and found[0], "the only worker")

    def worker_of(self, pid):
        """The pid of the worker that a process serves for: with a twin it is the parent of that one, the keeper."""
        try:
            parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has just gone
            return pid
        return parent if parent in self.children() else pid

    def serving(self, worker):
        """The process that serves for a worker: one of its keeper's children, or itself."""

        try:
            cell = worker.environment().get("MUSTER_BOARD_CELL")
        except (FileNotFoundError, ProcessLookupError):  # it has just gone
            return worker
        if cell is None:
            return worker

        def look():
            try:
                (pid,) = struct.unpack_from("=i", board, int(cell) * CELL_SIZE + WORKER_PID_OFFSET)
                if pid == 0 and "anon_inode:[pidfd]" in worker.fds().values():
                    return None  # a keeper that has not told yet
                return Process(pid, self) if pid else worker
            except (FileNotFoundError, ProcessLookupError):  # one of them has just gone
                return worker if worker.ended() else None

        with contextlib.closing(self.board()) as board:
            return self.wait_until(look, f"who serves for {worker.pid}")

    def slots(self):
        """Those that are filled; a process may vanish while it is looked at, or not be executed yet: it has no such variable."""
        found = []
        for worker in self.worker_processes():
            with contextlib.suppress(OSError, KeyError):
                found.append(int(worker.environment()["MUSTER_WORKER"]))
        return sorted(found)

    def admin_process(self):
        """muster-admin, None when it does not run."""
        return next(iter(self._processes(lambda name: name == "muster-admin")), None)

    def stderr(self):
        return self.stderr_file.read_text()

    def board(self):
        """The board, mapped by way of a worker that holds it. One may vanish meanwhile, or move its descriptors and be executed."""

        def mapped():
            for worker in self.worker_processes():
                with contextlib.suppress(OSError):
                    for number, target in worker.fds().items():
                        if "muster-board" in target:
                            fd = os.open(f"/proc/{worker.pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
                            try:
                                return mmap.mmap(fd, BOARD_SIZE)
                            finally:
                                os.close(fd)

        return self.wait_until(mapped, "a worker with a board")

    def wait_until(self, condition, what):
        """For what has no event of its own: looks again and again. Returns what the condition found."""
        end = time.monotonic() + DEADLINE
        while not (found := condition()):
            assert time.monotonic() < end, f"{what}: did not happen within {DEADLINE} s"
            self._receive()
            select.select([self.pidfd], [], [], 0.002)
        return found

    def wait_connections(self, n):
        """Until the workers have counted so many open connections."""
        with contextlib.closing(self.board()) as board:
            cells = range(0, BOARD_SIZE, CELL_SIZE)
            self.wait_until(lambda: sum(struct.unpack_from("=I", board, cell + 4)[0] for cell in cells) == n, f"{n} connections")

    # Requests

    def connect(self, name=None):
        self._receive()  # likewise
        for its_name, sock in self.socket_list:
            if name in (None, its_name):
                client = socket.socket(sock.family, socket.SOCK_STREAM)
                client.settimeout(DEADLINE)
                client.connect(sock.getsockname())
                return Client(client)
        raise KeyError(name)

    def get(self, target="/", name=None):
        with contextlib.closing(self.connect(name)) as client:
            return client.request(target, headers=["Connection: close"])

    def whoami(self):
        """What a worker tells of itself; `pid` is that of the worker, as everywhere, also if another process serves for it."""
        answer = self.get("/whoami")
        assert answer.status == 200
        who = json.loads(answer.body)
        return {**who, "pid": self.worker_of(who["pid"])}

    def close(self):
        if self.status is None:
            workers = [] if self.process.ended() else self.worker_processes()
            self.kill(signal.SIGKILL)
            for w in workers:
                w.kill(signal.SIGKILL)
            self.wait_exit()
            for w in workers:
                w.wait_end()
        with contextlib.suppress(ChildProcessError):  # orphans that came to us
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        for _, sock in self.socket_list:
            sock.close()
        self.notify_socket.close()
        shutil.rmtree(self.dir)


def inode(sock):
    st = os.fstat(sock.fileno())
    assert stat.S_ISSOCK(st.st_mode)
    return st.st_ino
