#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""From the SIGKILL of one of two workers to the readiness of its replacement, beside nginx, Node's cluster and PM2, each with the same
app of Node, and with a spare. And to that of its twin, which takes over instead of being started.

Ready is measured alike for all: a new connection is answered by a process that was not there before. The surviving worker is stopped
meanwhile, so that it takes no connection away; what is measured is how long clients wait when nobody else is there. For muster also
when it said so. Each service is started afresh and loses each of its workers once: who loses one again and again waits
before it tries again, as it should."""

import os
import signal
import statistics
import sys
import time

import common
import peers

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))


class Told:
    """When muster has said that it is complete again."""

    def __init__(self, peer):
        self.peer, self.incomplete, self.at = peer, False, None

    def look(self):
        for text in self.peer.messages():
            if "STATUS=1/2" in text:
                self.incomplete = True
            elif "STATUS=2/2" in text and self.incomplete and self.at is None:
                self.at = time.perf_counter()


def tells(peer):
    """With a twin there is nothing to say: the worker was not gone."""
    return isinstance(peer, peers.Muster) and peer.slots() == peer.workers()


def kill_one(peer, victim):
    """The milliseconds until a new process has answered, and until the master has said so, or None."""
    before = peer.workers()
    told = Told(peer) if tells(peer) else None
    if told:
        told.look()
    with peers.stopped(before - {victim}):
        start = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        answered = peers.first_answer(peer.port, lambda pid: pid not in before,
                                      more=[peer.notify.fileno()] if told else (), on_more=told.look if told else None)
        if told:
            peers.until(lambda: told.look() or told.at, "STATUS")
    return (answered - start) * 1000, (told.at - start) * 1000 if told else None


def main():
    kinds = peers.available([peers.variant(peers.Muster, "muster", settings="twin = false;"), peers.variant(peers.Muster, "muster, the twin"), peers.Nginx, peers.variant(peers.MusterNode, "muster, node"),
                             peers.variant(peers.MusterNode, "muster, node, a spare", balance="round-robin", spare=1), peers.NodeCluster, peers.Pm2])
    times, told = {kind: [] for kind in kinds}, {}
    for i in range(ROUNDS):
        for kind in kinds[i % len(kinds):] + kinds[:i % len(kinds)]:
            with peers.running(kind) as peer:
                for victim in sorted(peer.workers()):
                    answered, said = kill_one(peer, victim)
                    times[kind].append(answered)
                    if said is not None:
                        told.setdefault(kind, []).append(said)
                    peer.settle()

    rows = [("", "median ms", "p90", "p99", "fastest")]
    for name, t in [(kind.name, times[kind]) for kind in kinds] + [(kind.name + ": until it has said so", t) for kind, t in told.items()]:
        q = statistics.quantiles(t, n=100, method="inclusive")
        rows.append((name, *("%.1f" % x for x in (statistics.median(t), q[89], q[98], min(t)))))
    print("From the death of one of two workers to an answer of its replacement, %d each:" % (2 * ROUNDS))
    common.show(rows)


if __name__ == "__main__":
    sys.exit(main())
