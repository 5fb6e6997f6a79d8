#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a request costs the native worker, beside a bare epoll loop with a fixed answer (bare.c) and nginx: CPU of the workers, in
turns, two workers of each, `wrk -t1 -c64`. And what an idle connection adds to their memory.

All servers run all the time, those that wait cost nothing; a round loads one after the other, and the ratios are those of a round,
so that what else the machine does hits all of them alike. The bare loop sends exactly the bytes that our worker answers with.

BENCH_ONLY=hello,close chooses rows, BENCH_ROUNDS and BENCH_SECONDS how often and how long; a row in one round of one second shows
within ten seconds where it stands."""

import contextlib
import os
import pathlib
import resource
import shutil
import socket
import statistics
import subprocess
import sys

import common
import peers

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
SECONDS = os.environ.get("BENCH_SECONDS", "2")
ONLY = os.environ.get("BENCH_ONLY", "hello,pipelined,close,1k,64k,10m,idle").split(",")
CONNECTIONS = 64
PIPELINED = 16
IDLE = 10000
WORKERS = 2

HELLO = common.BUILD / "tests/bench/hello.so"
EXAMPLE = common.BUILD / "packaging/examples/hello.so"  # which prints the client's address and a number
FILES = {"/1k.bin": 1024, "/64k.bin": 64 * 1024, "/10m.bin": 10 * 1024 * 1024}

# Counts of what wrk has seen, exactly: requests, bytes, errors. Without a function `request` it sends one string without asking.
DONE = """
done = function(summary)
  local e = summary.errors
  print(string.format("counts %d %d %d", summary.requests, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
PIPELINE = """
init = function()
  local all = {}
  for i = 1, %d do all[i] = wrk.format("GET") end
  together = table.concat(all)
end
request = function() return together end
""" % PIPELINED


class Muster(peers.Muster):
    name = "muster"
    count = WORKERS

    def config(self):
        return super().config() + os.environ.get("BENCH_MUSTER_CONFIG", "")


class MusterModule(Muster):
    """It has no /whoami, so one cannot wait for each worker to answer."""

    module = HELLO

    def config(self):
        return 'app: { kind = "module"; module = "%s"; };\n%s%s' % (
            self.module, self.workers_group(), os.environ.get("BENCH_MUSTER_CONFIG", ""))

    def settle(self):
        peers.until(lambda: answers(self.port), "the first answer")
        self.wait_ready()


class Nginx(peers.Nginx):
    name = "nginx"
    cache = "off"
    hello = "hello\\n"

    def start(self):
        if not common.nginx():
            raise peers.Missing("it is not installed")
        config = self.folder / "nginx.conf"
        config.write_text(
            "daemon off; worker_processes %d; worker_rlimit_nofile 20000; error_log stderr crit; pid %s/pid;\n"
            "events { worker_connections 10240; } http { access_log off; sendfile on; open_file_cache %s; keepalive_requests 1000000000;\n"
            "keepalive_timeout 1000s; default_type application/octet-stream; server { listen 127.0.0.1:%d backlog=1024;\n"
            "location / { root %s; } location = /hello { return 200 '%s'; }\n"
            "location = /whoami { return 200 '{\"pid\":$pid}\\n'; } } }\n"
            % (self.count, self.folder, self.cache, self.port, self.site, self.hello))
        os.chmod(self.folder, 0o755)
        self.popen([common.nginx(), "-c", config])


class Bare(peers.Peer):
    """Started with an answer; it knows nothing else, so nothing can be asked of it."""

    name = "bare"
    answer = b""
    options = ()

    def start(self):
        (self.folder / "answer").write_bytes(self.answer)
        self.popen([common.BUILD / "tests/bench/bare", self.port, self.count, self.folder / "answer", *self.options])

    def settle(self):
        peers.until(lambda: answers(self.port), "the first answer")


def ask(port, target, fields=""):
    """The bytes of an answer, with a body that is known by its Content-Length."""
    with socket.create_connection(("127.0.0.1", port), timeout=peers.DEADLINE) as s:
        s.sendall(("GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (target, fields)).encode())
        data = b""
        while b"\r\n\r\n" not in data or len(data) < data.index(b"\r\n\r\n") + 4 + length_of(data):
            more = s.recv(65536)
            if not more:
                raise RuntimeError("closed within an answer")
            data += more
        return data


def length_of(answer):
    for line in answer.split(b"\r\n\r\n", 1)[0].split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    raise RuntimeError("no Content-Length: %r" % answer[:200])


def answers(port):
    with contextlib.suppress(OSError):
        return ask(port, "/")
    return None


class Row:
    """What is asked of which servers; the goals are ratios of the first one's cost to that of others, by their names."""

    def __init__(self, key, title, target, servers, goals, script="", options=(), big=False):
        self.key, self.title, self.target, self.servers, self.goals = key, title, target, servers, goals
        self.script, self.options, self.big = script, options, big

    def measure(self, server, folder):
        """CPU us of a request, requests a second."""
        script = folder / "script.lua"
        script.write_text(DONE + self.script)
        target = self.target if isinstance(server, (Muster, Bare)) or self.big or self.target in FILES else "/hello"
        before = cpu(server)
        done = subprocess.run(["wrk", "-t1", "-c%d" % CONNECTIONS, "-d%ss" % SECONDS, "-s", script, *self.options,
                               "http://127.0.0.1:%d%s" % (server.port, target)], stdout=subprocess.PIPE, text=True, check=True)
        after = cpu(server)
        requests, size, errors = map(int, done.stdout.split("counts ")[1].split()[:3])
        if self.big:  # many of them are not complete at the end
            requests = size / FILES[self.target]
        return {"cost": sum(after.values()) - sum(before.values()), "requests": requests, "errors": errors,
                "parts": [after[pid] - before.get(pid, 0) for pid in after]}


def cpu(server):
    return {pid: sum(map(common.cpu_usec, common.family(pid))) for pid in server.slots()}


def quotient(sample):
    return sample["cost"] / sample["requests"]


def run_row(row, folder):
    results = {s.label: [] for s in row.servers}
    for i in range(ROUNDS):
        for s in row.servers[i % len(row.servers):] + row.servers[:i % len(row.servers)]:
            results[s.label].append(row.measure(s, folder))
    return results


def show_row(row, results):
    first = row.servers[0].label
    rows = [(row.title, "requests/s", "CPU us", "busier worker", "%s is" % first, "from", "to", "goal", "errors")]
    for name, r in results.items():
        ratios = [quotient(a) / quotient(b) for a, b in zip(results[first], r)]
        goal = row.goals.get(name)
        compared = ("", "", "", "") if name == first else (
            "%.3f x" % statistics.median(ratios), "%.3f" % min(ratios), "%.3f" % max(ratios), "<= %.2f" % goal if goal else "")
        rows.append((name, "%.0f" % statistics.median(x["requests"] / float(SECONDS) for x in r), "%.2f" % statistics.median(map(quotient, r)),
                     "%.0f %%" % statistics.median(100 * max(x["parts"]) / max(1, sum(x["parts"])) for x in r), *compared, sum(x["errors"] for x in r)))
    common.show(rows)
    print(flush=True)


def start(stack, kind, label, files, **attributes):
    """One of @kind that runs until the end, None if it cannot be had. All send the very same files: what it costs to send one depends
    on how the kernel has laid it out in memory."""
    folder = stack.enter_context(common.folder())
    try:
        server = stack.enter_context(peers.variant(kind, label, **attributes)(folder))
    except peers.Missing as e:
        print("%s is not measured: %s." % (label, e))
        return None
    server.label = label
    for target in FILES:
        os.link(files / target[1:], server.site / target[1:])
    return server


def rows_of(stack):
    files = stack.enter_context(common.folder())
    for target, size in FILES.items():
        (files / target[1:]).write_bytes(b"x" * size)

    static = start(stack, Muster, "muster", files)
    hello = start(stack, MusterModule, "muster", files)
    example = start(stack, MusterModule, "muster, example", files, module=EXAMPLE)
    kept, closed = ask(hello.port, "/hello"), ask(hello.port, "/hello", "Connection: close\r\n")
    body = "x" * length_of(kept)
    nginx = start(stack, Nginx, "nginx", files, hello=body)
    cached = start(stack, Nginx, "nginx, open_file_cache", files, cache="max=1000")
    bare = start(stack, Bare, "bare", files, answer=kept, options=("--turns",))
    lopsided = start(stack, Bare, "bare, no turns", files, answer=kept)
    bare_close = start(stack, Bare, "bare", files, answer=closed, options=("--close", "--turns"))

    def row(*args, **kwargs):
        key, title, target, servers, goals = args
        return Row(key, title, target, [s for s in servers if s], goals, **kwargs)

    senders = [static, nginx, cached]
    return static, nginx, [
        row("hello", "hello, kept", "/hello", [hello, example, bare, lopsided, nginx], {"bare": 1.08}),
        row("pipelined", "hello, %d at once" % PIPELINED, "/hello", [hello, bare, nginx], {"nginx": 0.09}, script=PIPELINE),
        row("close", "hello, closed", "/hello", [hello, bare_close, nginx], {"bare": 1.15}, options=("-H", "Connection: close")),
        row("1k", "file of 1 KiB", "/1k.bin", senders, {"nginx": 0.65}),
        row("64k", "file of 64 KiB", "/64k.bin", senders, {"nginx": 0.7}),
        row("10m", "file of 10 MiB", "/10m.bin", senders, {"nginx": 1.0}, big=True),
    ]


def measure_idle(server):
    """Bytes of the workers' memory that each of many idle connections takes, all of which have had an answer: of all memory, of private."""
    pids = sorted(server.slots())
    before = [common.family_memory_kib(pid) for pid in pids]
    held = []
    try:
        for _ in range(IDLE):
            held.append(socket.create_connection(("127.0.0.1", server.port), timeout=peers.DEADLINE))
            held[-1].sendall(common.REQUEST.replace(b"/ ", b"/1k.bin "))
            if not held[-1].recv(65536):
                raise RuntimeError("closed without an answer")
        after = [common.family_memory_kib(pid) for pid in pids]
    finally:
        for s in held:
            s.close()
    return [sum(b[i] - a[i] for a, b in zip(before, after)) * 1024 / IDLE for i in (0, 1)]


def show_idle(servers):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 100:
        print("Idle connections are not measured: the limit of descriptors is %d." % hard)
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 100), hard))
    rows = [("%d idle connections" % IDLE, "bytes of each, PSS", "private dirty", "goal")]
    for s in servers:
        if s:
            rows.append((s.label, *("%.0f" % n for n in measure_idle(s)), "<= 1024" if s is servers[0] else ""))
    common.show(rows)


def main():
    if not shutil.which("wrk"):
        print("wrk is not installed.")
        return
    os.sync()  # pages of programs that were just built count as dirty until they are written
    print("CPU of the workers for a request, %d workers, wrk -t1 -c%d, medians of %d rounds of %s s; ratios by CPU, of the same round.\n"
          "nginx: sendfile on, tcp_nopush off.\n" % (WORKERS, CONNECTIONS, ROUNDS, SECONDS))
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(common.folder()))
        static, nginx, rows = rows_of(stack)
        for row in rows:
            if row.key in ONLY:
                show_row(row, run_row(row, folder))
        if "idle" in ONLY:
            show_idle([static, nginx])


if __name__ == "__main__":
    sys.exit(main())
