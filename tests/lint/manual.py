# SPDX-License-Identifier: MIT
"""The manual tells everything that the programs take: each key with its group and default, each option.

Arguments: musterd, and the built source of muster.conf(5)."""

import re
import subprocess
import sys
from pathlib import Path

from rules import SRC, finish

musterd, conf = sys.argv[1], Path(sys.argv[2]).read_text()
errors, checked = [], 0

printed = subprocess.run([musterd, "--print-config", "--config=/dev/null", "lint"], capture_output=True, text=True, check=True).stdout
for group, body in re.findall(r"^(\w+): \{\n(.*?)^\};", printed, re.M | re.S):
    section = re.search(rf"^## The group \*?{group}\*?\n(.*?)(?=^#+ |\Z)", conf, re.M | re.S)
    if not section:
        errors.append(f"muster.conf(5) has no group {group}")
        continue
    for key in re.findall(r"^  (\w+) = ", body, re.M):
        checked += 1
        if not re.search(rf"^\*{key}\*\n\t.*\n\n\tTakes .*\. Default: \*.*\*\.$", section[1], re.M):
            errors.append(f"muster.conf(5) does not explain {group}.{key}")
if "listen" not in conf:
    errors.append("muster.conf(5) does not explain listen")

page = (SRC / "man/musterd.8.scd").read_text().replace("\\", "")
usage = subprocess.run([musterd, "--help"], capture_output=True, text=True, check=True).stdout
for option in re.findall(r"--[a-z-]+", usage):
    checked += 1
    if option not in page:
        errors.append(f"musterd(8) does not explain {option}")

libmuster = "".join(p.read_text() for p in (SRC / "man").glob("*.3.scd"))
for name in re.findall(r"^\s+(muster_\w+);", (SRC / "lib/libmuster.sym").read_text(), re.M):
    checked += 1
    if name not in libmuster.replace("\\", ""):
        errors.append(f"no manual page of section 3 names {name}")
finish(errors, checked)
