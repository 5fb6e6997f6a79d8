# SPDX-License-Identifier: MIT
"""The stores of the shared state, as real servers of the test's own on unix sockets in a folder of their own.

A server is started when it has said itself that it takes connections, and is ended by the pids of its processes."""

import contextlib
import os
import pathlib
import pwd
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from harness import DEADLINE

POSTGRESQL_PROGRAMS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/bin")


def children(pid):
    with contextlib.suppress(OSError):
        return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def signal_all(pids, signo):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signo)


class ServerProcess:
    """A server which says on its output when it is ready."""

    def __init__(self, argv, ready, **popen):
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,  # pylint: disable=consider-using-with
                                        start_new_session=True, **popen)
        self.said, self.is_ready = [], threading.Event()
        self.reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self.reader.start()
        if not self.is_ready.wait(DEADLINE) or self.process.poll() is not None:
            self.kill()
            raise AssertionError(f"{argv[0]} did not start: {b''.join(self.said).decode()}")

    def _read(self, ready):
        for line in self.process.stdout:
            self.said.append(line)
            if ready in line:
                self.is_ready.set()
        self.is_ready.set()  # it has ended

    def pids(self):
        """It and its children."""
        return [self.process.pid, *children(self.process.pid)]

    def kill(self):
        """At once, all of its processes; they are gone when this returns."""
        signal_all([self.process.pid], signal.SIGSTOP)  # so that no more are born
        pids = self.pids()
        fds = []
        for pid in pids[1:]:
            with contextlib.suppress(ProcessLookupError):
                fds.append(os.pidfd_open(pid))
        signal_all(pids, signal.SIGKILL)
        self.process.wait(DEADLINE)
        for fd in fds:
            assert select.select([fd], [], [], DEADLINE)[0]
            os.close(fd)
        self._end()

    def stop(self, signo=signal.SIGTERM):
        """In order."""
        self.process.send_signal(signo)
        self.process.wait(DEADLINE)
        self._end()

    def _end(self):
        self.reader.join(DEADLINE)
        self.process.stdout.close()

    def pause(self):
        signal_all(self.pids(), signal.SIGSTOP)

    def resume(self):
        signal_all(self.pids(), signal.SIGCONT)


class Proxy:
    """Between a client and a server, on a unix socket: answers can be withheld, and connections be cut."""

    def __init__(self, path, target):
        self.path, self.target = path, target
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.lock, self.pairs, self.closed = threading.Lock(), [], False
        self.withheld = threading.Event()  # of the connections since the last cut
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, server = self.listener.accept()[0], socket.socket(socket.AF_UNIX)
                with self.lock:
                    if self.closed:
                        return
                    server.connect(str(self.target))
                    self.pairs.append((client, server))
                    withheld = self.withheld
                threading.Thread(target=self._copy, args=(client, server, None), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, withheld), daemon=True).start()

    @staticmethod
    def _copy(source, to, withheld):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not withheld or not withheld.is_set():
                    to.sendall(data)
        for s in (source, to):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def withhold(self):
        """From now on the server is heard by nobody."""
        with self.lock:
            self.withheld.set()

    def cut(self):
        """Ends all connections; new ones are as they were. What was withheld stays so: an answer after a gap would be rubbish."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
            self.withheld = threading.Event()
        for s in (s for pair in pairs for s in pair):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self):
        with self.lock:
            self.closed = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(DEADLINE)
        self.cut()
        self.listener.close()


class Store:
    """What the tests may do with a store. Each has a folder of its own, which is gone with it."""

    name = None
    has_server = True
    is_ordered = True  # keys come in the order of their bytes
    can_publish = True  # also outside of workers

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="muster-state-"))
        self.server = None
        self.is_paused = False

    @classmethod
    def missing(cls):
        """Why it cannot be tested here; None: it can."""
        return None

    def start(self):
        pass

    def kill(self):
        """SIGKILL. What it had acknowledged is there when it is started again."""
        server, self.server, self.is_paused = self.server, None, False
        server.kill()

    def stop(self):
        server, self.server = self.server, None
        server.stop()

    def pause(self):
        self.is_paused = True
        self.server.pause()

    def resume(self):
        self.is_paused = False
        self.server.resume()

    def close(self):
        if self.server:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Lmdb(Store):
    name = "lmdb"
    has_server = False
    can_publish = False

    def __init__(self):
        super().__init__()
        self.path = self.folder / "state"
        self.path.mkdir()
        self.url = f"lmdb:{self.path}"


class Redis(Store):
    name = "redis"
    is_ordered = False

    def __init__(self, *options, durable=False):
        """Durable: what is answered outlives a SIGKILL. With --appendfsync everysec, while the disk is busy, it would be up to two
        seconds later."""
        super().__init__()
        self.socket = self.folder / "socket"
        self.options = [*options, *(("--appendonly", "yes", "--appendfsync", "no") if durable else ())]
        self.url = f"redis+unix://{self.socket}"

    def url_of_proxy(self, folder):
        """The socket of a proxy there, and the URL by way of it."""
        return folder / "socket", f"redis+unix://{folder}/socket"

    @classmethod
    def missing(cls):
        return None if shutil.which("redis-server") else "redis-server is not installed"

    def start(self):
        argv = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "777", "--dir", str(self.folder),
                "--save", "", "--loglevel", "notice", *self.options]
        self.folder.chmod(0o755)
        self.server = ServerProcess(argv, b"ready to accept connections at")

    def command(self, *words):
        """What the server answers, without the protocol around it where it is a single line."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(DEADLINE)
            s.connect(str(self.socket))
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in (str(w).encode() for w in words)))
            return s.makefile("rb").readline().decode().strip()


class Postgresql(Store):
    """Made once for many tests, as it takes its time. fsync is off: what was committed is in the kernel nevertheless."""

    name = "postgresql"

    def __init__(self):
        super().__init__()
        self.data = self.folder / "data"
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self.database = "test"
        self.authentication = "trust"
        self.is_new = True

    @property
    def socket(self):
        return self.folder / ".s.PGSQL.5432"

    @property
    def url(self):
        return self.url_of()

    def url_of(self, user="tester", database=None, folder=None):
        return f"postgresql://{user}@/{database or self.database}?host={folder or self.folder}"

    def url_of_proxy(self, folder):
        """The socket of a proxy there, and the URL by way of it."""
        return folder / ".s.PGSQL.5432", self.url_of(folder=folder)

    @classmethod
    def programs(cls):
        top = pathlib.Path("/")
        for pattern in POSTGRESQL_PROGRAMS:
            for path in sorted(top.glob(pattern[1:]), reverse=True):
                if (path / "initdb").exists() and (path / "postgres").exists():
                    return path
        return None

    @classmethod
    def missing(cls):
        return None if cls.programs() else "PostgreSQL is not installed"

    def who(self):
        """It refuses to run as root."""
        if os.getuid() != 0:
            return {}
        entry = pwd.getpwnam("postgres")
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def own(self, path):
        if os.getuid() == 0:
            shutil.chown(path, "postgres", "postgres")

    def make(self):
        self.own(self.folder)
        self.folder.chmod(0o755)
        subprocess.run([self.programs() / "initdb", "-D", self.data, "-A", "trust", "-N", "--locale=C", "-E", "UTF8"], check=True, capture_output=True,
                       cwd="/", timeout=120, **self.who())

    def start(self):
        if self.is_new:
            self.make()
        (self.data / "pg_hba.conf").write_text(f"local all {self.user} trust\nlocal all all {self.authentication}\n")
        settings = {"listen_addresses": "", "unix_socket_directories": self.folder, "fsync": "off", "full_page_writes": "off",
                    "shared_buffers": "16MB", "max_connections": "50", "autovacuum": "off", "log_min_messages": "log",
                    "max_wal_size": "128MB", "wal_level": "minimal", "max_wal_senders": "0", "jit": "off"}
        argv = [str(self.programs() / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        self.server = ServerProcess(argv, b"database system is ready to accept connections", cwd="/", **self.who())
        if self.is_new:
            self.sql("create role tester login")
            self.sql("create database test owner tester")
        self.is_new = False

    def renew(self):
        """What it is for the next test: started, and as empty as it was made."""
        if self.server and (self.is_paused or self.authentication != "trust"):
            self.kill()
        self.authentication = "trust"
        if not self.server:
            self.start()
        self.end_sessions()
        self.sql("drop owned by tester; alter role tester password null", self.database)

    def end_sessions(self):
        """Those of the test before: what one still carries out, it would leave to the next test."""
        end = time.monotonic() + DEADLINE
        while self.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tester'"):
            assert time.monotonic() < end, "a session does not end"

    def stop(self):
        server, self.server = self.server, None
        server.stop(signal.SIGINT)

    def sql(self, text, database="postgres"):
        done = subprocess.run([self.programs() / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", self.user,
                               "-d", database, "-c", text], capture_output=True, text=True, check=False, timeout=DEADLINE)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


    @contextlib.contextmanager
    def session(self, database):
        """A psql whose transaction stays open until the end of the block."""
        psql = Psql([self.programs() / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", self.user, "-d", database])
        try:
            yield psql
        finally:
            psql.close()


class Psql:
    def __init__(self, argv):
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # pylint: disable=consider-using-with

    def command(self, text):
        """It is done when this returns."""
        self.process.stdin.write(f"{text};\n\\echo done\n")
        self.process.stdin.flush()
        while line := self.process.stdout.readline():
            if line == "done\n":
                return
        raise AssertionError("psql has ended")

    def close(self):
        self.process.stdin.close()
        self.process.wait(DEADLINE)
        self.process.stdout.close()


STORES = {store.name: store for store in (Lmdb, Redis, Postgresql)}


def wanted_stores():
    """Those of $MUSTER_TEST_STORES, else all."""
    text = os.environ.get("MUSTER_TEST_STORES")
    return text.split() if text else list(STORES)
