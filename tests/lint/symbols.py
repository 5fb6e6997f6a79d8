# SPDX-License-Identifier: MIT
"""libmuster and muster-worker export what the public headers declare and their lists of symbols say: nothing more, nothing
less. muster/http.h is the worker's, all others are the library's. What the worker gives the library itself is in no public header.

Arguments: the built library, the built worker."""

import re
import subprocess
import sys

from rules import SRC, finish, without_comments

WORKERS = "http.h"
INTERNAL = SRC / "ipc/worker-bus.h"
errors = []


def read_list(path):
    return set(re.findall(r"^\s*(\w+);", without_comments(path.read_text()).split("local:")[0], re.M))


def read_headers(wanted):
    declared = set()
    for header in (SRC / "include/muster").glob("*.h"):
        if wanted(header.name):
            text = without_comments(header.read_text())
            declared |= set(re.findall(r"\b(muster_\w+)\s*\(", re.sub(r"^\s*#.*(\\\n.*)*$", "", text, flags=re.M)))
    return declared


def read_exported(binary):
    """Pairs of a name and its version."""
    output = subprocess.run(["nm", "-D", "--defined-only", binary], capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        kind, name = line.split()[1:]
        if kind != "A":  # the name of the version itself
            yield name.partition("@@")[::2]


def compare(declared, listed, exported, file):
    for a, b, words in (
        (declared, listed, f"is declared in a header, but not in {file}"),
        (listed, declared, f"is in {file}, but in no public header"),
        (listed, exported, f"is in {file}, but not exported"),
        (exported, listed, f"is exported, but not in {file}"),
    ):
        errors.extend(f"{name} {words}" for name in sorted(a - b))


library = dict(read_exported(sys.argv[1]))
for name, version in library.items():
    if not re.fullmatch(r"LIBMUSTER_\d+", version):
        errors.append(f"{name} is exported without a version")
libraries = read_list(SRC / "lib/libmuster.sym")
compare(read_headers(lambda name: name != WORKERS), libraries, set(library), "libmuster.sym")

workers = read_list(SRC / "worker/muster-worker.sym")
# a sanitizer's own are in every program that is built with one
exported = {name for name, _ in read_exported(sys.argv[2]) if name.startswith("muster_")}
internal = set(re.findall(r"\b(muster_\w+)\(", without_comments(INTERNAL.read_text())))
compare(read_headers(lambda name: name == WORKERS) | internal, workers, exported, "muster-worker.sym")
finish(errors, len(libraries) + len(workers))
