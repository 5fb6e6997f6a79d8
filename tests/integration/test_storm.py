# SPDX-License-Identifier: MIT
"""Everything at once: whatever happens to workers, and whatever is asked for, in whatever order, the master gets over it.

What is done is random, but the same for the same seed. MUSTER_STORM_SEED and MUSTER_STORM_SECONDS make it another storm, or a
longer one."""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import time

from harness import MUSTER, tcp, unix
from lifecycle import begin

SEED = int(os.environ.get("MUSTER_STORM_SEED", "1"))
SECONDS = float(os.environ.get("MUSTER_STORM_SECONDS", "20"))

WORKERS = 3
MOST = 6  # at a time
COMMANDS_MAX = 4  # of muster(1) at a time

CONFIG = """workers: {{ count = {count}; start_timeout = "{start}"; stop_timeout = "{stop}"; soak = "{soak}"; watchdog = "{watchdog}"; }};
restart: {{ limit = 3; window = "2s"; backoff_min = "1ms"; backoff_max = "200ms"; }};
"""
CALM = {"count": WORKERS, "start": "20s", "stop": "1s", "soak": "10ms", "watchdog": "5s"}
BAD_CONFIGS = "workers: {", "workers: { count = 0; };", "workres: { };", 'workers: { soak = "never"; };'

MODES = (
    *("" for _ in range(8)),
    *("notify", "channel", "watchdog", "stubborn", "fork", "slow-ready=50", "slow-ready=50 notify", "never-ready@worker=2"),
    *("crash-at-start", "crash-at-start@worker=1", "exit=3@worker=3", "hang-at-start@worker=2", "crash-after=100", "exit-after=30"),
    *("exit-after=0 notify", "exit-after=0 channel", "crash-after=0"),
)

MESSAGES = (
    *("READY=1", "STOPPING=1", "RELOADING=1", "WATCHDOG=1", "WATCHDOG=trigger", "ERRNO=5", "EXTEND_TIMEOUT_USEC=100000", "BARRIER=1"),
    *("STATUS=busy", "STATUS=", "READY=0", "nonsense", "%ff"),
)

LINES = (
    *('{"act":"suicide"}', '{"act":"suicide","reason":"x"}', '{"cmd":"MUSTER","act":"ready"}', '{"cmd":"MUSTER","act":"retire"}'),
    *('{"cmd":"MUSTER","act":"status","text":"y"}', '{"cmd":"MUSTER"}', "[]", "1", "garbage", '{"cmd":"NODE_x"}'),
)

DEEDS = (
    *("/", "/whoami", "/suicide", "/suicide?tired", "/retire", "/leave", "/status?fine", "/close-channel", "/barrier", "/watchdog"),
    *("/crash", "/crash?silent", "/signal?n=9", "/signal?n=11", "/signal?n=15", "/signal?n=19", "/exit?code=0", "/exit?code=3"),
    *("/hang?silent", "/deadlock", "/block?msec=100", "/leak?mib=1", "/stubborn", "/stubborn?abort=1", "/fork", "/fork?child"),
)


class Storm:
    def __init__(self, m, control_path):
        self.m = m
        self.control_path = control_path
        self.random = random.Random(SEED)
        self.commands = []
        self.stopped = False
        self.admins = []

    def muster(self, *arguments):
        argv = [str(MUSTER), f"--socket={self.control_path}", "--json", *map(str, arguments)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def write_config(self, **changes):
        self.m.write_config(CONFIG.format(**{**CALM, **changes}))

    # What happens

    def signal_worker(self):
        signo = self.random.choice("KILL KILL TERM STOP STOP CONT CONT CONT ABRT HUP QUIT".split())
        workers = self.m.worker_processes()
        if workers:
            self.random.choice(workers).kill(getattr(signal, f"SIG{signo}"))

    def continue_workers(self):
        for worker in self.m.worker_processes():
            worker.kill(signal.SIGCONT)

    def signal_master(self):
        signo = getattr(signal, "SIG" + self.random.choice("HUP HUP TTIN TTOU".split()))
        for _ in range(self.random.choice((1, 1, 1, 2, 10))):
            self.m.kill(signo)

    def stop_master(self):
        """What happens meanwhile, it hears of all at once."""
        self.stopped = not self.stopped
        self.m.kill(signal.SIGSTOP if self.stopped else signal.SIGCONT)

    def signal_admin(self):
        """A few times: the pauses before it is started again grow, and the end has to wait for the last one."""
        admin = self.m.admin_process() if len(self.admins) < 4 else None
        if admin:
            self.admins.append(admin)
            admin.kill(self.random.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGABRT)))

    def command(self):
        if len(self.commands) < COMMANDS_MAX:
            words = self.random.choice((("reload", "web"), ("status", "web"), ("exits", "web"), ("scale", "web", self.random.randint(1, MOST))))
            self.commands.append(self.muster(*words))

    def tell_worker(self):
        """Up to five things on one connection; who waits for an answer of a worker that hangs would wait long."""
        with contextlib.suppress(OSError), contextlib.closing(self.m.connect()) as client:
            for _ in range(self.random.randint(1, 5)):
                client.send(f"GET {self.deed()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.sock.settimeout(self.random.choice((0.001, 0.02, 0.1)))
            client.sock.recv(1)

    def deed(self):
        kind = self.random.random()
        if kind < 0.4:
            some = self.random.choices(MESSAGES, k=self.random.randint(1, 3))
            return "/notify?" + "%0a".join(some)
        if kind < 0.6:
            some = self.random.choices(LINES, k=self.random.randint(1, 3))
            return "/channel?" + "%0a".join(some) + "%0a"
        return self.random.choice(DEEDS)

    def tell_admin(self):
        with contextlib.suppress(OSError), contextlib.closing(self.m.connect("control")) as client:
            client.send(self.random.choice((b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n" * 3, b"POST /v1/reload HTTP/1.1\r\n", b"\0\n\n")))

    def change_mode(self):
        self.m.life.set_mode(self.random.choice(MODES))

    def change_config(self):
        if self.random.random() < 0.2:
            self.m.config_file.write_text(self.random.choice(BAD_CONFIGS))
        else:
            self.write_config(
                count=self.random.randint(1, 6),
                start=self.random.choice(("50ms", "1s", "5s")),
                stop=self.random.choice(("0", "100ms", "1s")),
                soak=self.random.choice(("0", "10ms", "100ms")),
                watchdog=self.random.choice(("0", "100ms", "1s")),
            )

    def blow(self):
        what = (
            *((self.signal_worker, 6), (self.tell_worker, 10), (self.continue_workers, 2), (self.signal_master, 3)),
            *((self.stop_master, 3), (self.signal_admin, 1), (self.command, 3), (self.tell_admin, 1)),
            *((self.change_mode, 4), (self.change_config, 2)),
        )
        self.write_config(start="5s")  # a reload that hangs at the end has to be over before the calm's may begin
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            self.random.choices(*zip(*what))[0]()
            self.m._receive()
            assert not self.m.process.ended(), f"musterd has ended with {self.m.wait_exit()}: {self.m.stderr()[-5000:]}"
            for command in [c for c in self.commands if c.poll() is not None]:
                command.communicate()
                self.commands.remove(command)

    def empty_queue(self):
        """What nobody has accepted so far would make more workers hang."""
        listener = dict(self.m.socket_list)["http"]
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.accept()[0].close()

    def calm(self):
        """All is well again, which a reload that works is to bring about."""
        self.m.life.set_mode("")
        self.write_config()
        if self.stopped:
            self.stop_master()
        for command in self.commands:  # there may be reloads under way of what was before
            self.m.wait_until(lambda: command.poll() is not None, f"the end of {command.args}")
            command.communicate()
        for admin in self.admins:  # one that is going would drop the command
            self.m.wait_until(admin.ended, "the end of muster-admin")
        self.empty_queue()
        reload = self.muster("reload", "web")
        self.m.wait_until(lambda: reload.poll() is not None, "the end of the reload")
        assert reload.returncode == 0, reload.communicate()[1] + self.m.stderr()[-5000:]
        reload.communicate()

    def status(self):
        command = self.muster("status", "web")
        self.m.wait_until(lambda: command.poll() is not None, "the status")
        out, err = command.communicate()
        return json.loads(out) if command.returncode == 0 else {"error": err}

    def is_well(self):
        status = self.last = self.status()
        return status.get("workers") == {"wanted": WORKERS, "ready": WORKERS, "failing": 0} and len(status["processes"]) == WORKERS

    def wait_well(self):
        try:
            self.m.wait_until(self.is_well, f"{WORKERS} workers; seed {SEED}")
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.last}\n{self.m.stderr()[-5000:]}") from e


def zombies(m):
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == m.pid and fields[0] == "Z":
                found.append(entry.name)
    return found


def slots_ever(m):
    """How many there were at most, as the last worker has heard."""
    return max(int(w.environment()["MUSTER_INBOX_FDS"].split(":")[1]) for w in m.worker_processes())


def test_storm(start, tmp_path):
    """The master lives, comes back to as many workers as are wanted, keeps nothing of those that went, and ends as it should."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    with tempfile.TemporaryDirectory() as folder:  # a short one, for a socket
        control = pathlib.Path(folder) / "control"
        config, environment = CONFIG.format(**CALM), {"RUNTIME_DIRECTORY": str(runtime)}
        m = begin(start, tmp_path, config, environment=environment, sockets=[("http", tcp()), ("control", unix(control))])
        m.wait_ready()
        storm = Storm(m, control)
        storm.wait_well()
        n_before = len(m.process.fds())

        storm.blow()
        storm.calm()
        storm.wait_well()
        assert m.get().body == b"hello\n"
        m.wait_until(lambda: not zombies(m), "the end of zombies")
        m.wait_until(lambda: len(m.children()) == WORKERS + 1, "no more than workers and muster-admin")
        # More for a moment while it speaks to systemd or looks into /proc, then as now.
        # The two of each slot's inbox stay, for workers that know it; SIGTTIN makes more slots than MOST.
        m.wait_until(lambda: len(m.process.fds()) <= n_before + 2 * (slots_ever(m) - WORKERS), "no more descriptors than before")
        m.kill()
        assert m.wait_exit() == 0, m.stderr()[-5000:]
        assert not list(runtime.iterdir())
        for word in "Sanitizer", "runtime error", "Assertion":
            assert word not in m.stderr(), m.stderr()[m.stderr().index(word) - 200 :][:5000]
