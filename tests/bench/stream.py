#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Reading what a child prints through a stream, and what that adds to the parent's memory; beside a bare pipe and Node."""

import os
import sys

import common
import compare

GIB = int(os.environ.get("BENCH_STREAM_GIB", "10"))


def commands(reader, mib, node_mib, ways):
    every = {way: [compare.program("stream"), way, reader, str(mib)] for way in ways}
    every["node"] = compare.node_command("stream", compare.program("stream"), reader, node_mib)
    return every


def show(title, results):
    rows = [(title, "GiB read", "MiB/s", "CPU us/MiB", "memory grown KiB")]
    for name, r in results.items():
        rows.append((name, "%.1f" % (r[0]["operations"] / 2 ** 30), "%.0f" % (compare.median(r, "rate") / 2 ** 20),
                     "%.1f" % (compare.median(r, "cost") * 2 ** 20), "%d" % max(x["grown"] for x in r)))
    common.show(rows)
    print()


def main():
    cpus = sorted(os.sched_getaffinity(0))
    ways = ("muster", "pipe")
    print("Output of a child (CPU is the parent's; memory: the worst peak above the start):")
    show("one CPU for both", compare.rounds(commands("fast", GIB * 1024, 1024, ways), cpu=cpus[-1], n=3))
    show("slow reader", compare.rounds(commands("slow", 1024, 1024, ways[:1]), cpu=cpus[-1], n=3))
    if len(cpus) > 1:  # each waits for the other to be woken, which takes its time
        os.environ["BENCH_CHILD_CPU"] = str(cpus[0])
        show("a CPU for each", compare.rounds(commands("fast", 2048, 1024, ways), cpu=cpus[-1], n=3))


if __name__ == "__main__":
    sys.exit(main())
