#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Requests that fail over reloads under constant load, beside nginx, gunicorn and PM2: the same client, rate and connections for all.

The client counts what is refused, reset, closed without an answer, short, wrong or late (tests/integration/load_client.c). Latencies
count from when the request was due by the schedule."""

import os
import statistics
import sys
import time

import common
import peers

sys.path.append(str(common.SOURCE / "tests/integration"))
os.environ.setdefault("MUSTER_BUILD_DIR", str(common.BUILD))
from load import Load  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "4"))
RELOADS = int(os.environ.get("BENCH_RELOADS", "5"))  # in each round
RATE = int(os.environ.get("BENCH_RATE", "1000"))
KEPT, FRESH = 14, 2
QUIET_SECONDS = 2


def measure(kind):
    """One round: the account before the reloads, the one after, and how long they took."""
    with peers.running(kind) as peer, Load(peer.port, connections=KEPT, fresh=FRESH, rate=RATE) as load:
        load.wait(RATE // 2)  # what is slow only at first
        load.reset()
        load.wait(RATE * QUIET_SECONDS)
        quiet, took = load.reset(), []
        for _ in range(RELOADS):
            before = peer.workers()
            start = time.perf_counter()
            peer.reload()
            peer.wait_reloaded(before)
            took.append(time.perf_counter() - start)
            load.wait(RATE // 10)
        return quiet, load.count(), took


def row(kind, results):
    failed = {name: sum(busy.failed[name] - quiet.failed[name] for quiet, busy, _ in results) for name in results[0][0].failed}
    worst = [sum(busy.failed.values()) - sum(quiet.failed.values()) for quiet, busy, _ in results]
    return (kind.name, "%.1f" % (sum(failed.values()) / RELOADS / len(results)), "%.1f" % (max(worst) / RELOADS),
            "%.2f" % statistics.median(quiet.latency["p99"] / 1000 for quiet, _, _ in results),
            "%.2f" % statistics.median(busy.latency["p99"] / 1000 for _, busy, _ in results),
            "%.1f" % max(busy.latency["max"] / 1000 for _, busy, _ in results),
            "%.0f" % (statistics.median(t for _, _, took in results for t in took) * 1000),
            ", ".join("%d %s" % (n, name) for name, n in failed.items() if n) or "none")


def main():
    kinds = peers.available([peers.Muster, peers.Nginx, peers.Gunicorn, peers.Pm2, peers.Pm2Graceful])
    results = {kind: [] for kind in kinds}
    for i in range(ROUNDS):  # in turns: the machine's speed drifts
        for kind in kinds[i % len(kinds):] + kinds[:i % len(kinds)]:
            results[kind].append(measure(kind))
    rows = [("", "failed per reload", "worst round", "p99 ms, quiet", "p99 ms", "max ms", "a reload takes ms", "failed in all")]
    print("%d reloads of two workers under %d requests a second, %d kept connections and %d that are new for each request:"
          % (ROUNDS * RELOADS, RATE, KEPT, FRESH))
    common.show(rows + [row(kind, results[kind]) for kind in kinds])


if __name__ == "__main__":
    sys.exit(main())
