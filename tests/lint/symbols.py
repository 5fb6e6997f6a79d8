# SPDX-License-Identifier: MIT
"""libmuster exports what the public headers declare and the version script lists: nothing more, nothing less.

Arguments: the built library."""

import re
import subprocess
import sys

from rules import SRC, finish, without_comments

script = without_comments((SRC / "lib/libmuster.sym").read_text())
listed = set(re.findall(r"^\s*(\w+);", script.split("local:")[0], re.M))

declared = set()
for header in (SRC / "include/muster").glob("*.h"):
    text = without_comments(header.read_text())
    declared |= set(re.findall(r"\b(muster_\w+)\s*\(", re.sub(r"^\s*#.*(\\\n.*)*$", "", text, flags=re.M)))

exported, errors = set(), []
for line in subprocess.run(["nm", "-D", "--defined-only", sys.argv[1]], capture_output=True, text=True, check=True).stdout.split("\n"):
    if line:
        kind, name = line.split()[1:]
        name, _, version = name.partition("@@")
        if kind == "A":
            continue  # the name of the version itself
        exported.add(name)
        if not re.fullmatch(r"LIBMUSTER_\d+", version):
            errors.append(f"{name} is exported without a version")

for a, b, words in (
    (declared, listed, "is declared in a header, but not in libmuster.sym"),
    (listed, declared, "is in libmuster.sym, but in no public header"),
    (listed, exported, "is in libmuster.sym, but not exported"),
    (exported, listed, "is exported, but not in libmuster.sym"),
):
    errors += [f"{name} {words}" for name in sorted(a - b)]
finish(errors, len(listed))
