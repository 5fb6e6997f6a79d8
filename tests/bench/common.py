# SPDX-License-Identifier: MIT
"""What the measurements share: finding the programs, starting a service behind a real systemd-socket-activate, reading /proc."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MUSTER_BUILD_DIR", SOURCE / "build"))
MUSTERD = BUILD / "src/master/musterd"
LIBEXEC = BUILD / "src/worker"
MINIMAL = BUILD / "tests/bench/minimal"
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def muster_config(folder, workers=2, whoami=False):
    path = pathlib.Path(folder) / "bench.conf"
    path.write_text('app: { directory = "%s"; whoami = %s; };\nworkers: { count = %d; };\n'
                    % (SOURCE / "src/worker/welcome", str(whoami).lower(), workers))
    return path


def nginx_config(folder, port):
    path = pathlib.Path(folder) / "nginx.conf"
    path.write_text("daemon off; worker_processes 2; error_log stderr crit; pid %s/nginx.pid;\n"
                    "events {} http { access_log off; server { listen 127.0.0.1:%d; location / { root %s; index index.html; } } }\n"
                    % (folder, port, SOURCE / "src/worker/welcome"))
    return path


def nginx():
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


class Service:
    """A command behind systemd-socket-activate, started by the first connection."""

    def __init__(self, command, port=None, env=()):
        self.port = port or free_port()
        argv = ["systemd-socket-activate", "-l", "127.0.0.1:%d" % self.port, "--fdname=http"]
        for e in ("MUSTER_LIBEXECDIR=%s" % LIBEXEC, "MUSTER_LOG_LEVEL=err", *env):
            argv += ["-E", e]
        self.process = subprocess.Popen(argv + [str(c) for c in command], stderr=subprocess.PIPE, start_new_session=True)
        self.process.stderr.readline()  # "Listening on …": the socket is there

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        s.sendall(REQUEST)
        if not s.recv(65536):
            raise RuntimeError("closed without an answer")
        return s

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()


@contextlib.contextmanager
def service(command, **kwargs):
    s = Service(command, **kwargs)
    try:
        yield s
    finally:
        s.stop()


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as d:
        yield pathlib.Path(d)


def children(pid):
    return [int(p) for p in pathlib.Path("/proc/%d/task/%d/children" % (pid, pid)).read_text().split()]


def twins(pid):
    """Of the keeper of a native worker: who serves and then who waits to take over, as they were born. Of anybody else: nobody."""
    found = []
    with contextlib.suppress(OSError):
        program = os.readlink("/proc/%d/exe" % pid)
        for child in children(pid) if program.endswith("-worker") else ():
            with contextlib.suppress(OSError):  # it has ended
                if os.readlink("/proc/%d/exe" % child) == program:
                    found.append(child)
    return found


def serving(pid):
    """The process that serves, of a worker that the master knows by this one."""
    return (twins(pid) or [pid])[0]


def family(pid):
    """The processes of a worker."""
    return [pid, *twins(pid)]


def memory_kib(pid):
    """PSS and private dirty memory of a process, in KiB."""
    values = {}
    for line in pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text().splitlines()[1:]:
        key, value = line.split(":")
        values[key] = int(value.split()[0])
    return values["Pss"], values["Private_Dirty"]


def family_memory_kib(pid):
    """Of a worker with all of its processes."""
    return [sum(values) for values in zip(*map(memory_kib, family(pid)))]


def tasks(pid, name):
    """The texts of a file of /proc, of each thread."""
    for path in pathlib.Path("/proc/%d/task" % pid).iterdir():
        with contextlib.suppress(OSError):
            yield (path / name).read_text()


def wakeups(pid):
    """How often the threads were put on a CPU: voluntary and involuntary context switches."""
    return sum(int(line.split()[1]) for status in tasks(pid, "status") for line in status.splitlines() if "ctxt_switches" in line)


def cpu_usec(pid):
    """The CPU time of the threads, finer than the ticks of stat."""
    return sum(int(text.split()[0]) for text in tasks(pid, "schedstat")) / 1000


def show(rows):
    widths = [max(len(str(r[i])) for r in rows) for i in range(len(rows[0]))]
    for r in rows:
        print("  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(r, widths))))
