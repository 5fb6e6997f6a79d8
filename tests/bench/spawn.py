#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Starting and reaping children: muster_spawn() on a loop, beside posix_spawn() and waitpid(), fork() and exec, and Node's
child_process.spawn(). From a small process and from one of 1 GiB.

Most of the time of /bin/true is its own: the dynamic linker asks the processor some 70 times what it is, and in a virtual machine
each of these questions is one for the hypervisor. So there is also a program that does nothing but exit, without a libc. All run on
one CPU: where there are two, the kernel chooses anew in each run whether a parent and its child share one."""

import os
import platform
import struct
import sys

import common
import compare

MSEC = int(os.environ.get("BENCH_SPAWN_MSEC", "400"))

# machine: (e_machine, exit(0) as instructions)
LEAST_CODE = {
    "x86_64": (62, bytes.fromhex("31ff b83c000000 0f05")),
    "aarch64": (183, struct.pack("<III", 0xD2800000, 0xD2800BA8, 0xD4000001)),
}


def least_program(folder):
    """An ELF file of a header, one segment and some instructions; or None on other machines."""
    if platform.machine() not in LEAST_CODE:
        return None
    machine, code = LEAST_CODE[platform.machine()]
    base, head = 0x400000, 64 + 56
    elf = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, machine, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, head + len(code), head + len(code), 0x1000)
    path = folder / "least"
    path.write_bytes(elf + segment + code)
    path.chmod(0o755)
    return str(path)


def commands(stdio, mib, program):
    every = {way: [compare.program("spawn"), way, stdio, str(MSEC), str(mib), program] for way in ("muster", "posix_spawn", "fork")}
    every["node"] = compare.node_command("spawn", stdio, MSEC, mib, program)
    return every


def main():
    with common.folder() as d:
        least = least_program(d)
        for title, stdio, mib, program in (("/bin/true", "inherit", 0, "/bin/true"),
                                           ("/bin/true, from a process of 1 GiB", "inherit", 1024, "/bin/true"),
                                           ("the least program", "inherit", 0, least),
                                           ("the least program, with /dev/null for its standard streams", "ignore", 0, least)):
            if program:
                print("Children started and reaped, one after the other on one CPU: %s" % title)
                compare.table(compare.rounds(commands(stdio, mib, program), cpu=compare.some_cpu()), "muster", "children")


if __name__ == "__main__":
    sys.exit(main())
