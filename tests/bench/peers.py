# SPDX-License-Identifier: MIT
"""Masters with workers, ours and others, behind one interface: where they listen, who the workers are, how they are told to
reload. All answer "hello" to / and {"pid":…} to /whoami. Those that cannot be had say why, and are left out."""

import contextlib
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import time

import common

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "muster"
WHOAMI = b"GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
DEADLINE = 30


class Missing(Exception):
    """A peer that cannot be measured here."""


def until(condition, what, timeout=DEADLINE):
    end = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > end:
            raise RuntimeError("%s: not within %d s" % (what, timeout))
        time.sleep(0.002)
    return result


def node():
    """The newest one of tests/node-versions, or what MUSTER_NODE names."""
    if "MUSTER_NODE" in os.environ:
        return os.environ["MUSTER_NODE"]
    lines = subprocess.run([common.SOURCE / "tests/node-versions"], stdout=subprocess.PIPE, text=True, check=False).stdout.split("\n")
    programs = [line.split(" ", 1)[1] for line in lines if " " in line]
    if not programs:
        raise Missing("tests/node-versions has no Node.js")
    return programs[-1]


def pm2():
    """The script of PM2, fetched once."""
    script = CACHE / "pm2/node_modules/pm2/bin/pm2"
    if not script.exists() and shutil.which("npm"):
        subprocess.run(["npm", "install", "--prefix", CACHE / "pm2", "--no-audit", "--no-fund", "--ignore-scripts", "pm2@latest"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if not script.exists():
        raise Missing("npm cannot fetch pm2@latest")
    return script


class Peer:
    """A service on a port of its own, in a folder of its own; use it by `with`."""

    count = 2  # workers

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.port = common.free_port()
        self.site = self.folder / "site"
        self.site.mkdir()
        (self.site / "index.html").write_text("hello\n")
        self.master = None  # a pid
        self.process = None

    def popen(self, argv, env=None):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **(env or {})}, start_new_session=True)
        self.master = self.process.pid

    def workers(self):
        """The pids, without those that have ended."""
        with contextlib.suppress(OSError):
            return {pid for pid in common.children(self.master) if is_worker(pid)}
        return set()

    def slots(self):
        """The pids that the master knows the workers by: the same, but for a worker with a keeper."""
        return self.workers()

    def reload(self):
        os.kill(self.master, signal.SIGHUP)

    def wait_reloaded(self, before):
        """Until all workers of before have gone and as many new ones serve."""
        until(lambda: not self.workers() & before and len(self.workers()) == len(before), "the end of the reload")

    def ask(self, timeout=DEADLINE):
        """The pid that answers on a new connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as s:
            s.sendall(WHOAMI)
            return pid_of(receive_all(s))

    def answers(self):
        with contextlib.suppress(OSError, ValueError):
            return self.ask()
        return None

    def settle(self):
        """Until each worker has answered. The others are stopped meanwhile, or one could take all connections."""
        until(self.answers, "the first answer")
        pids = until(lambda: len(self.workers()) == self.count and self.workers(), "%d workers" % self.count)
        for pid in pids:
            others = pids - {pid}
            with stopped(others):
                first_answer(self.port, lambda found, pid=pid: found == pid, DEADLINE)

    def stop(self):
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def __enter__(self):
        try:
            self.start()
            self.settle()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()


def is_worker(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def rests(pid):
    """Whether it has nothing to do for a while: it has loaded what it wants to."""
    before = common.cpu_usec(pid)
    time.sleep(0.1)
    return common.cpu_usec(pid) == before > 0


def receive_all(s):
    data = b""
    while more := s.recv(65536):
        data += more
    return data


def pid_of(answer):
    found = re.search(rb'"pid": ?(\d+)', answer)
    if not found:
        raise ValueError(answer)
    return int(found[1])


@contextlib.contextmanager
def stopped(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def first_answer(port, wanted, timeout=DEADLINE, every=0.002, more=(), on_more=None):
    """Opens connections, one more after every so many seconds, until a process that is @wanted has answered on one of them. More than
    one, because some masters hand connections out by turns, also to a worker that does not look, or has just died. @more: what
    else to listen to meanwhile."""
    poll, open_ones, end = select.poll(), {}, time.monotonic() + timeout
    for fd in more:
        poll.register(fd, select.POLLIN)
    try:
        while time.monotonic() < end:
            s = socket.create_connection(("127.0.0.1", port), timeout=timeout)
            open_ones[s.fileno()] = s
            s.sendall(WHOAMI)
            poll.register(s, select.POLLIN)
            next_one = time.monotonic() + every
            while (rest := next_one - time.monotonic()) > 0:
                for fd, _ in poll.poll(rest * 1000):
                    if fd in more:
                        on_more()
                        continue
                    now = time.perf_counter()
                    with contextlib.suppress(OSError, ValueError):
                        if wanted(pid_of(receive_all(open_ones[fd]))):
                            return now
                    poll.unregister(fd)
                    open_ones.pop(fd).close()
        raise RuntimeError("no answer of a new worker within %d s" % timeout)
    finally:
        for s in open_ones.values():
            s.close()


class Muster(Peer):
    name = "muster"
    is_ready = False
    environment = ()
    settings = ""  # more keys of the group

    def config(self):
        return 'app: { directory = "%s"; whoami = true; };\n%s' % (self.site, self.workers_group())

    def workers_group(self):
        return "workers: { count = %d; %s %s };\n" % (self.count, self.settings, os.environ.get("BENCH_MUSTER_WORKERS", ""))

    def slots(self):
        return super().workers()

    def workers(self):
        return {common.serving(pid) for pid in self.slots()}

    def start(self):
        config = self.folder / "bench.conf"
        config.write_text(self.config())
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(self.folder / "notify"))
        self.service = common.Service([common.MUSTERD, config], port=self.port, env=["NOTIFY_SOCKET=%s/notify" % self.folder, *self.environment])
        self.master = self.service.process.pid

    def messages(self):
        while select.select([self.notify], [], [], 0)[0]:
            yield self.notify.recv(65536).decode()

    def wait_ready(self):
        until(lambda: any("READY=1" in text for text in self.messages()), "READY=1")

    def settle(self):
        if not self.is_ready:  # a worker that dies before is a start that failed
            until(self.answers, "the first answer")
            self.wait_ready()
            self.is_ready = True
        super().settle()

    def wait_reloaded(self, before):
        self.wait_ready()
        super().wait_reloaded(before)

    def stop(self):
        if self.master:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.master, signal.SIGKILL)
            self.service.stop()
        self.notify.close()


class MusterNode(Muster):
    """The app that Node's own primary and PM2 run. With a spare the connections must be passed by turns: it is found by them."""

    name = "muster"
    balance = "auto"
    spare = 0
    environment = ("MUSTER_LIBEXECDIR=%s" % (common.BUILD / "src/exec"),)
    places = frozenset()

    def workers(self):
        """Without the spare."""
        everybody = super().workers()
        return everybody & self.places if self.spare else everybody

    def settle(self):
        if not self.spare:
            super().settle()
            return
        if not self.is_ready:
            until(self.answers, "the first answer")
            self.wait_ready()
            self.is_ready = True
        everybody = until(lambda: len(p := Peer.workers(self)) == self.count + self.spare and p, "the workers and the spare")
        found = set()
        until(lambda: found.add(self.ask()) or len(found) == self.count, "answers of %d workers" % self.count)
        self.places = frozenset(found)
        for pid in everybody - found:
            until(lambda pid=pid: rests(pid), "the spare")

    def config(self):
        return ('app: { kind = "node"; command = ("%s", "%s"); environment = { BENCH_PORT = "%d"; }; };\n'
                'workers: { count = %d; balance = "%s"; spare = %d; };\n'
                % (node(), HERE / "hello.js", self.port, self.count, self.balance, self.spare))


class Nginx(Peer):
    name = "nginx"

    def start(self):
        if not common.nginx():
            raise Missing("it is not installed")
        config = self.folder / "nginx.conf"
        config.write_text("daemon off; worker_processes %d; error_log stderr crit; pid %s/pid; worker_shutdown_timeout 10s;\n"
                          "events {} http { access_log off; server { listen 127.0.0.1:%d backlog=1024;\n"
                          "keepalive_requests 100000000; location / { root %s; index index.html; }\n"
                          "location = /whoami { return 200 '{\"pid\":$pid}\\n'; } } }\n" % (self.count, self.folder, self.port, self.site))
        os.chmod(self.folder, 0o755)
        self.popen([common.nginx(), "-c", config])


class Gunicorn(Peer):
    name = "gunicorn"

    def start(self):
        python = "/usr/bin/python3"
        if subprocess.run([python, "-c", "import gunicorn"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
            raise Missing("python3-gunicorn is not installed")
        self.popen([python, "-m", "gunicorn", "--chdir", HERE, "-b", "127.0.0.1:%d" % self.port, "-w", self.count, "-k", "gthread", "--threads", 16,
                    "--backlog", 1024, "--log-level", "error", "wsgi:app"], env={"PYTHONDONTWRITEBYTECODE": "1"})


class NodeCluster(Peer):
    name = "node cluster"
    policy = "rr"  # or "none": the workers accept for themselves

    def start(self):
        self.popen([node(), HERE / "cluster.js"], env={"BENCH_PORT": str(self.port), "BENCH_WORKERS": str(self.count),
                                                       "NODE_CLUSTER_SCHED_POLICY": self.policy})


class Pm2(Peer):
    name = "PM2"
    options = ()
    graceful = "0"

    def command(self, *args):
        env = {**os.environ, "PM2_HOME": str(self.folder / "pm2"), "BENCH_PORT": str(self.port), "BENCH_GRACEFUL": self.graceful,
               "PM2_DISCRETE_MODE": "true", "PATH": "%s:%s" % (pathlib.Path(node()).parent, os.environ["PATH"])}
        with open(self.folder / "log", "ab") as log:
            subprocess.run([node(), pm2(), *args], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True,
                           timeout=2 * DEADLINE, cwd=self.folder)

    def start(self):
        pm2()
        self.command("start", HERE / "hello.js", "--name", "bench", "-i", str(self.count), *self.options)
        self.master = int((self.folder / "pm2/pm2.pid").read_text())

    def reload(self):
        self.command("reload", "bench")

    def stop(self):
        if self.master:
            with contextlib.suppress(subprocess.SubprocessError):
                self.command("kill")


class Pm2Graceful(Pm2):
    name = "PM2, graceful app"
    options = ("--wait-ready", "--kill-timeout", "5000")
    graceful = "1"


def variant(kind, name, **attributes):
    """As kind, with other attributes."""
    return type(kind.__name__, (kind,), {"name": name, **attributes})


@contextlib.contextmanager
def running(kind):
    with common.folder() as folder, kind(folder) as peer:
        yield peer


def available(kinds):
    """Those that start here; a line for each that does not."""
    found = []
    for kind in kinds:
        try:
            with running(kind):
                found.append(kind)
        except Missing as e:
            print("%s is not measured: %s." % (kind.name, e))
    return found
