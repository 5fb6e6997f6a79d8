# SPDX-License-Identifier: MIT
"""Every MESSAGE_ID is explained in the journal's catalog, is used, and is nobody else's."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rules import SRC, finish, sources

CATALOG = SRC / "master/muster.catalog"
FIELDS = {"MUSTER_APP", "MUSTER_WORKER", "MUSTER_AGENT", "MUSTER_WORKER_PID", "MUSTER_SERVING_PID", "MUSTER_GENERATION", "_SYSTEMD_UNIT", "_PID"}

defined = re.findall(r'#define (MESSAGE_ID_\w+)\s+"(\w+)"', (SRC / "basic/message-id.h").read_text())
text = CATALOG.read_text()
entries = dict(re.findall(r"^-- (\w+)\n(.*?)(?=^-- |\Z)", text, re.M | re.S))
used = " ".join(p.read_text() for p in sources(".c", under=SRC))
errors = []

if len({value for _, value in defined}) != len(defined):
    errors.append("two messages have the same id")
for name, value in defined:
    if not re.fullmatch("[0-9a-f]{32}", value):
        errors.append(f"{name}: {value} is no 128 bit number in lower case")
    if value not in entries:
        errors.append(f"{name}: {value} is not in {CATALOG.name}")
    if not re.search(rf"\b{name}\b", used):
        errors.append(f"{name} is never used")
for value, entry in entries.items():
    if value not in {v for _, v in defined}:
        errors.append(f"{CATALOG.name}: {value} is no message of ours")
    head, _, body = entry.partition("\n\n")
    if not re.search(r"^Subject: \S", head, re.M) or "Defined-By: muster" not in head or not body.strip():
        errors.append(f"{CATALOG.name}: {value} lacks its Subject, Defined-By or text")
    for field in re.findall(r"@(\w+)@", entry):
        if field not in FIELDS:
            errors.append(f"{CATALOG.name}: {value} names the unknown field {field}")

if shutil.which("journalctl"):
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "usr/lib/systemd/catalog")
        folder.mkdir(parents=True)
        Path(root, "var/lib/systemd/catalog").mkdir(parents=True)
        shutil.copy(CATALOG, folder)
        r = subprocess.run(["journalctl", "--root", root, "--update-catalog"], capture_output=True, text=True)
        if r.returncode or r.stderr.strip():
            errors.append(f"journalctl refuses {CATALOG.name}: {r.stderr}")
finish(errors, len(defined))
