#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""An app of Node.js under musterd, beside Node's own cluster primary and PM2, in turns: what a request costs on kept and on short
connections, in the primary and in all, how even connections are spread, and what the primary holds of memory.

The app is the same and knows of none of them (hello.js). CPU is that of the primary and the workers; the client's does not count. The
goals are those of musterd with the balance that Node's primary has, round-robin.

What a request on a kept connection costs is compared at a steady rate: where each is as fast as it can, the costs say how many requests
an event loop happens to find at a time."""

import collections
import os
import select
import socket
import statistics
import sys
import time

import common
import peers

sys.path.append(str(common.SOURCE / "tests/integration"))
os.environ.setdefault("MUSTER_BUILD_DIR", str(common.BUILD))
from load import Load  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
ONLY = os.environ.get("BENCH_ONLY", "cost,spread").split(",")
CONNECTIONS = 64
WARM = 60000, 6000  # requests before any is measured, on kept and on short connections: until what is run often is compiled
KEPT, SHORT = 60000, 12000  # requests that are measured, as fast as they are answered
KEPT_RATE, STEADY = 20000, 60000  # requests a second on kept connections, and how many are measured
RATE, PACED = 1000, 3000  # the same on short ones
SPREAD_WORKERS, SPREAD = 4, (64, 1000)

ROUND_ROBIN = peers.variant(peers.MusterNode, "musterd round-robin", balance="round-robin")
INHERIT = peers.variant(peers.MusterNode, "musterd inherit", balance="inherit")
NODE_RR = peers.variant(peers.NodeCluster, "node cluster, RR")
NODE_NONE = peers.variant(peers.NodeCluster, "node cluster, NONE", policy="none")
PM2 = peers.variant(peers.Pm2, "PM2 -i")
KINDS = [ROUND_ROBIN, INHERIT, NODE_RR, NODE_NONE, PM2]

# What is measured, of which the other, by what ratio it should be at most.
GOALS = [
    ("primary, short", "short primary", ROUND_ROBIN, NODE_RR, 0.5),
    ("primary, short, paced", "paced primary", ROUND_ROBIN, NODE_RR, None),
    ("all, kept, steady", "steady all", ROUND_ROBIN, NODE_RR, 1.0),
    ("all, kept, steady", "steady all", INHERIT, NODE_RR, 1.0),
    ("all, short", "short all", ROUND_ROBIN, NODE_RR, 0.7),
    ("all, short", "short all", INHERIT, NODE_RR, 0.7),
    ("all, short", "short all", ROUND_ROBIN, PM2, 0.6),
    ("all, short", "short all", INHERIT, PM2, 0.6),
    ("all, short", "short all", INHERIT, ROUND_ROBIN, None),
    ("all, kept, steady", "steady all", INHERIT, ROUND_ROBIN, None),
]


def cpu(peer):
    """Of the primary, and of all."""
    primary = common.cpu_usec(peer.master)
    return primary, primary + sum(common.cpu_usec(pid) for pid in peer.workers())


def measure_load(peer, name, load, requests):
    """What that many requests cost, as members of a dictionary whose names begin with @name."""
    before, account, start = cpu(peer), load.reset(), time.perf_counter()
    load.wait(requests)
    after, end = cpu(peer), time.perf_counter()
    now = load.count()
    n = now.answered - account.answered
    return {
        name + " primary": (after[0] - before[0]) / n,
        name + " all": (after[1] - before[1]) / n,
        name + " rate": n / (end - start),
        name + " p99": now.latency["p99"] / 1000,
        name + " failed": sum(now.failed.values()),
    }


def measure_cost(kind):
    result = {}
    with peers.running(kind) as peer:
        with Load(peer.port, connections=CONNECTIONS) as load:
            load.wait(WARM[0])
            result.update(measure_load(peer, "kept", load, KEPT))
        with Load(peer.port, connections=CONNECTIONS, rate=KEPT_RATE) as load:
            load.wait(KEPT_RATE // 2)
            result.update(measure_load(peer, "steady", load, STEADY))
        with Load(peer.port, connections=0, fresh=CONNECTIONS) as load:
            load.wait(WARM[1])
            result.update(measure_load(peer, "short", load, SHORT))
        with Load(peer.port, connections=0, fresh=16, rate=RATE) as load:
            load.wait(RATE // 2)
            result.update(measure_load(peer, "paced", load, PACED))
            result["memory"] = common.memory_kib(peer.master)[0] / 1024
    return result


def burst(port, n):
    """Opens so many connections at once, asks on each, and counts by whom they are answered while all are open. None: they failed."""
    poll, sockets, pids = select.poll(), {}, collections.Counter()
    try:
        for _ in range(n):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", port))
            sockets[s.fileno()] = s
            poll.register(s, select.POLLOUT)
        end = time.monotonic() + peers.DEADLINE
        while pids.total() < n and time.monotonic() < end:
            for fd, events in poll.poll(1000):
                if events == select.POLLOUT:
                    sockets[fd].send(common.REQUEST.replace(b"/ ", b"/whoami ", 1))
                    poll.modify(fd, select.POLLIN)
                    continue
                try:
                    pids[peers.pid_of(sockets[fd].recv(65536))] += 1
                except (OSError, ValueError):
                    pids[None] += 1
                poll.unregister(fd)
    finally:
        for s in sockets.values():
            s.close()
    pids[None] += n - pids.total()
    return pids


def measure_spread(kind):
    """The standard deviations of the connections of a worker, and how many connections failed."""
    with peers.running(peers.variant(kind, kind.name, count=SPREAD_WORKERS)) as peer:
        result = {"failed": 0}
        for n in SPREAD:
            pids = burst(peer.port, n)
            result["failed"] += pids[None]
            result[n] = statistics.pstdev([pids[pid] for pid in peer.workers()])
        return result


def in_turns(kinds, measure):
    results = {kind: [] for kind in kinds}
    for i in range(ROUNDS):
        for kind in kinds[i % len(kinds):] + kinds[:i % len(kinds)]:
            results[kind].append(measure(kind))
    return results


def median(results, key):
    return statistics.median(r[key] for r in results)


def show_cost(results):
    print("CPU us of a request, 2 workers, %d connections: kept, kept and %d requests a second (steady), short, short and %d a second (paced); "
          "medians of %d:" % (CONNECTIONS, KEPT_RATE, RATE, ROUNDS))
    columns = [("kept/s", "kept rate", "%.0f"), ("p99 ms", "kept p99", "%.1f"), ("all us", "kept all", "%.1f"),
               ("steady/s", "steady rate", "%.0f"), ("p99 ms", "steady p99", "%.1f"), ("all us", "steady all", "%.1f"),
               ("short/s", "short rate", "%.0f"), ("p99 ms", "short p99", "%.1f"), ("primary us", "short primary", "%.1f"), ("all us", "short all", "%.1f"),
               ("paced/s", "paced rate", "%.0f"), ("p99 ms", "paced p99", "%.1f"), ("primary us", "paced primary", "%.1f"), ("all us", "paced all", "%.1f"),
               ("primary MiB", "memory", "%.2f")]
    rows = [("", *(title for title, _, _ in columns), "failed")]
    for kind, r in results.items():
        failed = sum(x[name + " failed"] for x in r for name in ("kept", "steady", "short", "paced"))
        rows.append((kind.name, *(form % median(r, key) for _, key, form in columns), failed))
    common.show(rows)

    print("\nRatios of what was measured in the same round:")
    rows = [("", "", "of", "median", "from", "to", "goal")]
    for title, key, one, other, goal in GOALS:
        if one in results and other in results:
            ratios = [x[key] / y[key] for x, y in zip(results[one], results[other])]
            rows.append((title, one.name, other.name, "%.2f" % statistics.median(ratios), "%.2f" % min(ratios), "%.2f" % max(ratios),
                         "<= %.1f" % goal if goal else ""))
    common.show(rows)


def show_spread(results):
    print("\nStandard deviation of the connections of a worker, %d workers, opened at once:" % SPREAD_WORKERS)
    rows = [("", *(title for n in SPREAD for title in ("of %d" % n, "at most")), "failed")]
    for kind, r in results.items():
        rows.append((kind.name, *("%.1f" % f(x[n] for x in r) for n in SPREAD for f in (statistics.median, max)), sum(x["failed"] for x in r)))
    common.show(rows)


def main():
    kinds = peers.available(KINDS)
    if "cost" in ONLY:
        show_cost(in_turns(kinds, measure_cost))
    if "spread" in ONLY:
        show_spread(in_turns(kinds, measure_spread))


if __name__ == "__main__":
    sys.exit(main())
