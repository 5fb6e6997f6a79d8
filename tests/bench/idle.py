#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Wake-ups of an idle service under a watchdog: at most one per process and tick (half the watchdog's time)."""

import contextlib
import os
import socket
import sys
import tempfile
import time

import common
import peers

SECONDS = int(os.environ.get("BENCH_IDLE_SECONDS", "60"))
WATCHDOG_SECONDS = 10


@contextlib.contextmanager
def idle(config, port=None, environment=()):
    """The pids of a service that has started, by their roles."""
    with tempfile.TemporaryDirectory() as run, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(run + "/notify")
        env = ["NOTIFY_SOCKET=%s/notify" % run, "WATCHDOG_USEC=%d" % (WATCHDOG_SECONDS * 1000000), *environment]
        with common.service([common.MUSTERD, config], port=port, env=env) as s:
            s.connect().close()
            while b"READY=1" not in notify.recv(4096):
                pass
            slots = common.children(s.process.pid)
            peers.until(lambda: all(len(common.twins(slot)) != 1 for slot in slots), "the twins")
            pids = {"master": s.process.pid}
            for i, slot in enumerate(sorted(slots)):
                family = common.family(slot)
                names = ["worker %d" % (i + 1)] if len(family) == 1 else ["keeper %d" % (i + 1), "worker %d" % (i + 1), "twin %d" % (i + 1)]
                pids.update(zip(names, family))
            yield pids


def main():
    with common.folder() as d, contextlib.ExitStack() as stack:
        pids = {"static, " + role: pid for role, pid in stack.enter_context(idle(common.muster_config(d))).items()}
        try:
            node = peers.MusterNode(d)
            (d / "node.conf").write_text(node.config())
            pids.update({"node, " + role: pid for role, pid in stack.enter_context(idle(d / "node.conf", node.port, node.environment)).items()})
        except peers.Missing as e:
            print("An app of Node is not measured: %s." % e)
        time.sleep(2)  # what the start still has to do
        before = {name: common.wakeups(pid) for name, pid in pids.items()}
        time.sleep(SECONDS)
        after = {name: common.wakeups(pid) for name, pid in pids.items()}

    ticks = SECONDS * 2 // WATCHDOG_SECONDS
    print("Context switches in %d idle seconds (%d ticks):" % (SECONDS, ticks))
    common.show([("", "switches", "a second")] + [(name, after[name] - before[name], "%.2f" % ((after[name] - before[name]) / SECONDS)) for name in pids])


if __name__ == "__main__":
    sys.exit(main())
