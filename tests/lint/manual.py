# SPDX-License-Identifier: MIT
"""The manual tells everything that the programs take: each key with its group and default, each option. Its pages lead to pages and
functions that exist, and those of section 7 are found. And its recipes are valid, and the tested ones.

Arguments: musterd, the built source of muster.conf(5), and further programs with the sections of their manuals."""

import re
import subprocess
import sys
import tempfile
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
for name in ("listen", "agents"):
    if f"## The list {name}\n" not in conf:
        errors.append(f"muster.conf(5) does not explain {name}")
with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
    file.write('agents: ( { name = "x"; command = [ "x" ]; } );')
    file.flush()
    printed = subprocess.run([musterd, "--print-config", file.name], capture_output=True, text=True, check=True).stdout
section = re.search(r"^## The list agents\n(.*?)(?=^# |\Z)", conf, re.M | re.S)
for key in re.findall(r"^    (\w+) = ", printed.split("agents: (")[1], re.M):
    checked += 1
    if not section or not re.search(rf"^\*{key}\*\n\t.*\n\n\tTakes .*\. Default: \*.*\*\.$", section[1], re.M):
        errors.append(f"muster.conf(5) does not explain agents.{key}")

for program, section in [(musterd, "8"), *zip(sys.argv[3::2], sys.argv[4::2])]:
    name = Path(program).name
    page = (SRC / f"man/{name}.{section}.scd").read_text().replace("\\", "")
    usage = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    for option in re.findall(r"--[a-z-]+", usage):
        checked += 1
        if not re.search(rf"^\*.*{option}\*", page, re.M):
            errors.append(f"{name}({section}) does not explain {option}")
    for verb in re.findall(r"^  ([a-z]+) [A-Z\[]", usage, re.M):
        checked += 1
        if not re.search(rf"^\*{verb}\*", page, re.M):
            errors.append(f"{name}({section}) does not explain {verb}")

libmuster = "".join(p.read_text() for p in (SRC / "man").glob("*.3.scd"))
headers = "".join(p.read_text() for p in (SRC / "include/muster").glob("*.h"))
symbols = (SRC / "lib/libmuster.sym").read_text() + (SRC / "worker/muster-worker.sym").read_text()
for name in re.findall(r"^\s+(muster_\w+);", symbols, re.M):
    checked += 1
    if f"{name}(" in (SRC / "ipc/worker-bus.h").read_text():
        continue  # libmuster's own
    if name not in libmuster.replace("\\", ""):
        errors.append(f"no manual page of section 3 names {name}")
pages = {(m[1], m[2]): p for p in (SRC / "man").glob("*.scd*") if (m := re.match(r"([\w.-]+)\.(\d)\.scd", p.name))}
see_also = (SRC / "man/musterd.8.scd").read_text().split("# SEE ALSO")[1]
readme = (SRC.parent / "README.md").read_text()
for (name, section), path in pages.items():
    text = path.read_text().replace("\\", "")
    for other in re.findall(r"\*(muster[\w.-]*)\*\((\d)\)", text):
        checked += 1
        if other not in pages and f"{other[0]};" not in symbols:
            errors.append(f"{name}({section}) refers to {other[0]}({other[1]}), which does not exist")
    for function in re.findall(r"\*(muster_\w+)\*\(\)", text):
        checked += 1
        if f"{function};" not in symbols and function not in headers:
            errors.append(f"{name}({section}) explains {function}(), which does not exist")
    if section == "7" and (f"*{name}*(7)" not in see_also or f"`{name}(7)`" not in readme):
        errors.append(f"musterd(8) and README.md do not lead to {name}(7)")
recipes = re.findall(r"^```\n(.*?)^```", (SRC / "man/muster-recipes.7.scd").read_text(), re.M | re.S)
for recipe in recipes:
    if not recipe.startswith("app: {"):
        continue
    checked += 1
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(recipe)
        file.flush()
        r = subprocess.run([musterd, "--check", file.name], capture_output=True, text=True)
    if r.returncode != 0:
        errors.append(f"muster-recipes(7) has a configuration that is refused: {r.stderr.strip()}")
PROGRAMS, SESSIONS = "tests/integration/programs", "packaging/examples/sessions"
for name in (f"{PROGRAMS}/serve.py", f"{PROGRAMS}/puma.rb", f"{SESSIONS}/web.conf", f"{SESSIONS}/server.js"):
    checked += 1
    tested = (SRC.parent / name).read_text()
    if not any(tested.endswith("\n" + recipe) for recipe in recipes):
        errors.append(f"muster-recipes(7) does not have what is tested: {name}")
finish(errors, checked)
