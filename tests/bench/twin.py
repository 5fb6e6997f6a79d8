#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What the twin costs, and what it is good for:

cost     CPU of all processes of a worker for a request, with the twin and without, in turns
kill     from the SIGKILL of the process that serves to the first byte of an answer on a connection that was there before
new      the same on a new connection, of two workers of which the other one is stopped, beside nginx
lost     requests that fail when one of two workers is killed under 32 clients without a pause, beside nginx and gunicorn
memory   private memory of keeper and twin
wakeups  how often these wake up, while nothing happens and under load

BENCH_ONLY=cost,kill chooses among them; BENCH_ROUNDS, BENCH_SECONDS and BENCH_KILLS say how often and how long."""

import contextlib
import gc
import os
import pathlib
import random
import resource
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

# These come with defaults of their own, which are meant for other rows.
ROUNDS = int(os.environ.setdefault("BENCH_ROUNDS", "15"))
SECONDS = os.environ.setdefault("BENCH_SECONDS", "1")
KILLS = int(os.environ.get("BENCH_KILLS", "60"))
ONLY = os.environ.get("BENCH_ONLY", "cost,kill,new,lost,memory,wakeups").split(",")

import common  # noqa: E402
import http_cost  # noqa: E402
import peers  # noqa: E402
import refill  # noqa: E402

sys.path.append(str(common.SOURCE / "tests/integration"))
os.environ.setdefault("MUSTER_BUILD_DIR", str(common.BUILD))
from load import Load  # noqa: E402

OFF = "twin = false;"
FEW, MANY = 64, 10000  # connections
DESCRIPTORS = 25000  # a worker keeps two for each connection in readiness, one of them for a file
BETWEEN_SECONDS = 0.3  # kills; more than five in a second, and the keeper would wait before it makes the next twin
LOST_CONNECTIONS = 32
LOST_REQUESTS = 2000  # between two kills
GOAL_COST, GOAL_FEW_MS, GOAL_MANY_MS, GOAL_KIB = 1.03, 3, 15, 300
IDLE_SECONDS, WATCHDOG_SECONDS = 20, 10


# What it costs

def cost_rows(stack):
    files = stack.enter_context(common.folder())
    for target, size in http_cost.FILES.items():
        (files / target[1:]).write_bytes(b"x" * size)

    def three(kind):
        """The third is as the second: by how much it differs, this machine cannot tell."""
        labels = {"twin": "", "no twin": OFF, "no twin, again": OFF}
        return [http_cost.start(stack, kind, label, files, settings=settings) for label, settings in labels.items()]

    hello, static = three(http_cost.MusterModule), three(http_cost.Muster)
    goals = {"no twin": GOAL_COST, "no twin, again": GOAL_COST}
    return [
        http_cost.Row("hello", "hello, kept", "/hello", hello, goals),
        http_cost.Row("pipelined", "hello, %d at once" % http_cost.PIPELINED, "/hello", hello, goals, script=http_cost.PIPELINE),
        http_cost.Row("close", "hello, closed", "/hello", hello, goals, options=("-H", "Connection: close")),
        http_cost.Row("1k", "file of 1 KiB", "/1k.bin", static, goals),
    ]


def show_cost():
    if not shutil.which("wrk"):
        print("wrk is not installed: the cost of a request is not measured.\n")
        return
    print("CPU for a request with the twin and without, %d workers, wrk -t1 -c%d, medians of %d rounds of %s s; ratios of the same round:"
          % (http_cost.WORKERS, http_cost.CONNECTIONS, ROUNDS, SECONDS))
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(common.folder()))
        for row in cost_rows(stack):
            http_cost.show_row(row, http_cost.run_row(row, folder))


# From the death to an answer

class One(http_cost.Muster):
    """One worker, which has all the connections, and for so long as they are needed."""

    count = 1

    def config(self):
        return super().config() + 'http: { max_connections = %d; idle_timeout = "1h"; };\n' % (MANY + 1000)

    def keeper(self):
        return next(iter(self.slots()))

    def serving_and_twin(self):
        """When there are both, and the twin has gone to sleep: it waits."""
        found = common.twins(self.keeper())
        return found if len(found) == 2 and state(found[1]) == "S" else None


def state(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()[0]
    return None


def connect(port, n):
    """Connections that have been answered once and wait for a request."""
    clients = []
    for _ in range(n):
        clients.append(socket.create_connection(("127.0.0.1", port), timeout=peers.DEADLINE))
        clients[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask(clients[-1])
    return clients


def ask(client):
    client.sendall(common.REQUEST)
    receive_answer(client)


def receive_answer(client, data=b""):
    while not data.endswith(b"hello\n"):
        more = client.recv(65536)
        if not more:
            raise RuntimeError("the connection was closed: %r" % data)
        data += more


def ask_one(clients):
    """The moment of the first byte of the answer to one of them."""
    client = random.choice(clients)
    client.sendall(common.REQUEST)
    first = client.recv(1)
    now = time.perf_counter()
    receive_answer(client, first)
    return now


def ask_all(clients):
    """The moment when all of them have been answered."""
    poll, waiting = select.poll(), {c.fileno(): c for c in clients}
    for client in clients:
        client.sendall(common.REQUEST)
        poll.register(client, select.POLLIN)
    while waiting:
        for fd, _ in poll.poll():
            poll.unregister(fd)
            receive_answer(waiting.pop(fd))
    return time.perf_counter()


def kill_many(server, clients, asking):
    times = []
    for _ in range(KILLS):
        victim, _ = peers.until(server.serving_and_twin, "a twin that waits")
        gc.disable()
        start = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        times.append((asking(clients) - start) * 1000)
        gc.enable()
        time.sleep(BETWEEN_SECONDS)
    return times


def quantiles(times):
    q = statistics.quantiles(times, n=100, method="inclusive")
    return ["%.2f" % x for x in (statistics.median(times), q[89], q[98], min(times))]


def show_kill():
    """Each number of connections with a server of its own: what was open before leaves its marks in the table."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # not everybody may raise it
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, DESCRIPTORS)))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = [("", "median ms", "p90", "p99", "fastest", "goal of the median")]
    for n, goal in ((FEW, GOAL_FEW_MS), (min(MANY, (hard - 500) // 2), GOAL_MANY_MS)):
        with peers.running(One) as server:
            clients = connect(server.port, n)
            rows.append(("%d open, one asks" % n, *quantiles(kill_many(server, clients, ask_one)), "<= %d" % goal))
            if n == FEW:
                rows.append(("%d open, the last answer to all" % n, *quantiles(kill_many(server, clients, ask_all)), ""))
            for client in clients:
                ask(client)  # not one was lost
                client.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print("From the SIGKILL of the process that serves to the first byte of an answer, on connections from before, %d kills each:" % KILLS)
    common.show(rows)
    print(flush=True)


def available(*kinds):
    return peers.available(kinds)


def show_new():
    kinds = available(peers.variant(peers.Muster, "muster"), peers.variant(peers.Muster, "muster, no twin", settings=OFF), peers.Nginx)
    times = {kind: [] for kind in kinds}
    while len(times[kinds[0]]) < KILLS:
        for kind in kinds:
            with peers.running(kind) as peer:
                for victim in sorted(peer.workers()):
                    times[kind].append(refill.kill_one(peer, victim)[0])
                    peer.settle()
    print("From the SIGKILL of one of two workers, the other being stopped, to an answer on a new connection, %d kills each:" % KILLS)
    common.show([("", "median ms", "p90", "p99", "fastest"), *((kind.name, *quantiles(times[kind])) for kind in kinds)])
    print(flush=True)


# What is lost

def lose(peer, load, kills):
    """The failures of each kill, and the longest time that a request took."""
    results = []
    load.wait(LOST_REQUESTS)
    for _ in range(kills):
        before, victim = load.reset(), random.choice(sorted(peer.workers()))
        os.kill(victim, signal.SIGKILL)
        load.wait(LOST_REQUESTS)
        peers.until(lambda v=victim: v not in (w := peer.workers()) and len(w) == peer.count, "the next worker")
        after = load.count()
        results.append((after.failures - before.failures, after.latency["max"] / 1000))
        time.sleep(BETWEEN_SECONDS)
    return results


def show_lost():
    kinds = available(peers.variant(peers.Muster, "muster"), peers.variant(peers.Muster, "muster, no twin", settings=OFF), peers.Nginx, peers.Gunicorn)
    results, each = {kind: [] for kind in kinds}, 2  # more, and a worker that is started anew has to wait
    while len(results[kinds[0]]) < KILLS:
        for kind in kinds:
            with peers.running(kind) as peer, Load(peer.port, connections=LOST_CONNECTIONS) as load:
                results[kind] += lose(peer, load, each)
    rows = [("", "requests lost by a kill", "fewest", "most", "in all", "longest wait, ms: median", "most")]
    for kind, r in results.items():
        lost, waits = zip(*r)
        rows.append((kind.name, "%.1f" % statistics.mean(lost), min(lost), max(lost), sum(lost), "%.1f" % statistics.median(waits), "%.1f" % max(waits)))
    print("%d kills of one of two workers under %d clients, each on its connection and without a pause:" % (KILLS, LOST_CONNECTIONS))
    common.show(rows)
    print(flush=True)


# What is there all the time

class Watched(http_cost.Muster):
    settings = 'watchdog = "%ds";' % WATCHDOG_SECONDS


def load_with_wrk(port):
    subprocess.run(["wrk", "-t1", "-c64", "-d5s", "http://127.0.0.1:%d/" % port], stdout=subprocess.DEVNULL, check=True)


def roles(server):
    """The pids of keeper, worker and twin, for each slot."""
    peers.until(lambda: all(len(common.twins(slot)) == 2 for slot in server.slots()), "the twins")
    return [dict(zip(("keeper", "worker", "twin"), common.family(slot))) for slot in sorted(server.slots())]


def private_kib(pid):
    lines = pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text().splitlines()[1:]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_") and "Hugetlb" not in line)


def memory_row(title, server):
    """What is shared among the three of a slot alone is private to none of them: that is what their shares of it (PSS) are for."""
    found = [{role: (private_kib(pid), common.memory_kib(pid)[0]) for role, pid in slot.items()} for slot in roles(server)]
    worst = max(found, key=lambda m: m["keeper"][0] + m["twin"][0])
    return (title, worst["keeper"][0], worst["twin"][0], worst["keeper"][0] + worst["twin"][0], "<= %d" % GOAL_KIB, worst["worker"][0],
            worst["keeper"][1] + worst["twin"][1], worst["worker"][1])


def show_memory():
    os.sync()  # pages of programs that were just built count as dirty until they are written
    rows = [("private KiB", "keeper", "twin", "both", "goal", "worker", "both, PSS", "worker, PSS")]
    for label, kind in (("files", http_cost.Muster), ("module", http_cost.MusterModule)):
        with peers.running(kind) as server:
            rows.append(memory_row(label + ", at first", server))
            clients = connect_any(server.port, 1000)
            if shutil.which("wrk"):
                load_with_wrk(server.port)
            rows.append(memory_row(label + ", after load, 1000 open", server))
            for slot in roles(server):
                os.kill(slot["worker"], signal.SIGKILL)
                peers.until(lambda s=slot: s["worker"] not in common.twins(s["keeper"]), "the end of the worker")
            rows.append(memory_row(label + ", after a take-over", server))
            for client in clients:
                client.close()
    print("Memory, the worse of two workers:")
    common.show(rows)
    print(flush=True)


def connect_any(port, n):
    clients = []
    for _ in range(n):
        clients.append(socket.create_connection(("127.0.0.1", port), timeout=peers.DEADLINE))
        clients[-1].sendall(common.REQUEST)
        if not clients[-1].recv(65536):
            raise RuntimeError("closed without an answer")
    return clients


def voluntary(pid):
    return sum(int(line.split()[1]) for status in common.tasks(pid, "status") for line in status.splitlines()
               if line.startswith("voluntary_ctxt_switches"))


def show_wakeups():
    with peers.running(Watched) as server:
        slots = roles(server)
        time.sleep(2)  # what the start still has to do

        def count(action):
            before = [{role: voluntary(pid) for role, pid in slot.items()} for slot in slots]
            action()
            return [{role: voluntary(pid) - b[role] for role, pid in slot.items()} for slot, b in zip(slots, before)]

        idle = count(lambda: time.sleep(IDLE_SECONDS))
        loaded = count(lambda: load_with_wrk(server.port)) if shutil.which("wrk") else None
    rows = [("wake-ups", "%d s idle" % IDLE_SECONDS, "5 s of load")]
    for i, slot in enumerate(slots):
        for role in slot:
            rows.append(("%s %d" % (role, i + 1), idle[i][role], loaded[i][role] if loaded else "not measured"))
    print("Wake-ups with a watchdog of %d s (asked of keeper and twin: one in each half of it at most):" % WATCHDOG_SECONDS)
    common.show(rows)
    print(flush=True)


def main():
    for name, show in {"cost": show_cost, "kill": show_kill, "new": show_new, "lost": show_lost, "memory": show_memory,
                       "wakeups": show_wakeups}.items():
        if name in ONLY:
            show()


if __name__ == "__main__":
    sys.exit(main())
