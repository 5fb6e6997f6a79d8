# SPDX-License-Identifier: MIT
"""What the rules of the tree have in common: where it is, what belongs to it, and how a broken rule is told."""

import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
SRC = TOP / "src"


def sources(*suffixes, under=TOP):
    """Files of the tree, without what was built or is not ours to write."""
    for path in sorted(under.rglob("*")):
        parts = path.relative_to(TOP).parts
        if parts[0] == ".git" or parts[0].startswith("build") or "__pycache__" in parts or "corpus" in parts:
            continue
        if path.is_file() and (not suffixes or path.suffix in suffixes):
            yield path


def without_comments(text):
    return re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)


def finish(errors, checked):
    """Prints what is wrong and ends: a test that looked at nothing has failed too."""
    for error in errors:
        print(error)
    print(f"{checked} looked at, {len(errors)} wrong")
    sys.exit(1 if errors or not checked else 0)
