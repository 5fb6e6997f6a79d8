#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Memory of a master with two workers, and of its workers with 100 open connections, beside nginx. A native worker is its keeper, the
process that serves and the twin together."""

import os
import sys

import common

CONNECTIONS = 100


def measure(s):
    held = [s.connect() for _ in range(2 * CONNECTIONS)]  # about CONNECTIONS for each of the two
    master = s.process.pid
    result = [("master", *common.memory_kib(master))]
    result += [("worker", *common.family_memory_kib(p)) for p in sorted(common.children(master))]
    for h in held:
        h.close()
    return result


def main():
    os.sync()  # pages of programs that were just built count as dirty until they are written
    table = [("", "PSS KiB", "private dirty KiB")]
    with common.folder() as d:
        # As under systemd, where there is somebody to notify and no need for a guard.
        with common.service([common.MUSTERD, common.muster_config(d)], env=["NOTIFY_SOCKET=%s/nobody" % d]) as s:
            table += [("muster " + r[0], *r[1:]) for r in measure(s)]
        if common.nginx():
            port = common.free_port()
            with common.service([common.nginx(), "-c", common.nginx_config(d, port)], port=port, env=["NGINX=3;"]) as s:
                table += [("nginx " + r[0], *r[1:]) for r in measure(s)]
    print("Memory with %d open connections:" % (2 * CONNECTIONS))
    common.show(table)


if __name__ == "__main__":
    sys.exit(main())
