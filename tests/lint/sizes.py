# SPDX-License-Identifier: MIT
"""Nothing is too long to be read: files, functions, lines. Every source says its licence in its first lines."""

import re
import shutil
import subprocess

from rules import SRC, TOP, finish, sources

MAX_FILE, MAX_FUNCTION = 1000, 100
# not written for people to read as source, or of a format without comments
NO_LICENCE = re.compile(r"(^|/)(LICENSE|NEWS\.md|README\.md|\.gitignore|\.clang-format)$|^packaging/debian/|\.(md|json|html|ico|svg|png)$")

errors, checked = [], 0
for path in sources():
    name = str(path.relative_to(TOP))
    try:
        lines = path.read_text().split("\n")
    except UnicodeDecodeError:
        continue
    checked += 1
    if not NO_LICENCE.search(name) and not any("SPDX-License-Identifier: MIT" in line for line in lines[:5]):
        errors.append(f"{name}: no SPDX line")
    if path.suffix in (".c", ".h", ".py") and len(lines) > MAX_FILE + 1:
        errors.append(f"{name}: {len(lines) - 1} lines, at most {MAX_FILE}: part it by responsibility")
    if path.suffix in (".c", ".h"):
        errors += [f"{name}:{i}: a tab" for i, line in enumerate(lines, 1) if "\t" in line]

ctags = shutil.which("ctags")
if ctags and "Universal" in subprocess.run([ctags, "--version"], capture_output=True, text=True).stdout:
    tags = subprocess.run(
        [ctags, "-x", "--kinds-c=f", "--_xformat=%F %N %n %e", *map(str, sources(".c", ".h", under=SRC))],
        capture_output=True, text=True, check=True,
    ).stdout
    for tag in tags.splitlines():
        file, function, first, last = tag.split()
        checked += 1
        if last.isdigit() and int(last) - int(first) + 1 > MAX_FUNCTION:
            errors.append(f"{file}:{first}: {function} has {int(last) - int(first) + 1} lines, at most {MAX_FUNCTION}")
finish(errors, checked)
