#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The installed package on booted Debian 12 and 13: memory of the master and of its workers under journald, with open connections."""

import pathlib
import socket
import sys

import common

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "system"))
import machine as machines  # noqa: E402
import packages  # noqa: E402

CONNECTIONS = 100


def main():
    reason = machines.cannot_run()
    if reason:
        print("Not measured: %s." % reason)
        return 77
    table = [("", "PSS KiB", "private dirty KiB")]
    for suite in machines.SUITES:
        debs = packages.build(suite).debs("muster", "libmuster0")
        m = machines.Machine(suite)
        try:
            for deb in debs:
                (m.path("/root") / pathlib.Path(deb).name).write_bytes(pathlib.Path(deb).read_bytes())
            m.run("sh", "-c", "dpkg -i /root/*.deb")
            m.systemctl("start", "muster.socket")
            held = []
            for _ in range(2 * CONNECTIONS):
                s = m.socket(socket.AF_INET)
                s.connect(("127.0.0.1", 8080))
                s.sendall(common.REQUEST)
                s.recv(65536)
                held.append(s)
            m.wait_unit("muster.service", "active")
            pids = [int(p) for p in m.processes("muster.service")]
            for pid in sorted(pids):
                name = m.proc(pid, "comm").read_text().strip()
                rollup = dict(line.split(":") for line in m.proc(pid, "smaps_rollup").read_text().splitlines()[1:])
                table.append(("%s: %s" % (suite, name), *(int(rollup[k].split()[0]) for k in ("Pss", "Private_Dirty"))))
        finally:
            m.close()
    print("Memory on a booted systemd with %d open connections:" % (2 * CONNECTIONS))
    common.show(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
