#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Messages between a parent and its child: libmuster's channel beside a bare socket pair and beside Node's fork()."""

import os
import sys

import compare

MSEC = int(os.environ.get("BENCH_CHANNEL_MSEC", "700"))


def round_trips():
    commands = {way: [compare.program("channel"), way, "echo", str(MSEC)] for way in ("muster", "socketpair", "epoll", "sd_event")}
    commands["node"] = compare.node_command("channel", "echo", MSEC)
    print('Round trips of {"a":1}, both processes on one CPU (socketpair, epoll, sd_event: read and write of as many bytes):')
    compare.table(compare.rounds(commands, cpu=compare.some_cpu()), "muster", "trips")


def one_way(size, count, cpu, where):
    commands = {"muster": [compare.program("channel"), "muster", "send", str(count), str(size)],
                "node": compare.node_command("channel", "send", count, size)}
    print("Messages of %d bytes to the child, %s:" % (size, where))
    compare.table(compare.rounds(commands, cpu=cpu), "muster", "messages")


def main():
    round_trips()
    for cpu, where in ((None, "on any CPU"), (compare.some_cpu(), "both on one CPU")):
        one_way(1024, 60000, cpu, where)
        one_way(64 * 1024, 4000, cpu, where)


if __name__ == "__main__":
    sys.exit(main())
