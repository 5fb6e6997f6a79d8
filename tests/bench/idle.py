#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Wake-ups of an idle service under a watchdog: at most one per process and tick (half the watchdog's time)."""

import os
import socket
import sys
import tempfile
import time

import common

SECONDS = int(os.environ.get("BENCH_IDLE_SECONDS", "60"))
WATCHDOG_SECONDS = 10


def main():
    with common.folder() as d, tempfile.TemporaryDirectory() as run, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(run + "/notify")
        env = ["NOTIFY_SOCKET=%s/notify" % run, "WATCHDOG_USEC=%d" % (WATCHDOG_SECONDS * 1000000)]
        with common.service([common.MUSTERD, common.muster_config(d)], env=env) as s:
            s.connect().close()
            while b"READY=1" not in notify.recv(4096):
                pass
            time.sleep(1)  # what the start still has to do
            pids = {"master": s.process.pid}
            for i, pid in enumerate(sorted(common.children(s.process.pid))):
                pids["worker %d" % (i + 1)] = pid
            before = {name: common.wakeups(pid) for name, pid in pids.items()}
            time.sleep(SECONDS)
            after = {name: common.wakeups(pid) for name, pid in pids.items()}

    ticks = SECONDS * 2 // WATCHDOG_SECONDS
    print("Context switches in %d idle seconds (%d ticks):" % (SECONDS, ticks))
    common.show([("", "switches")] + [(name, after[name] - before[name]) for name in pids])


if __name__ == "__main__":
    sys.exit(main())
