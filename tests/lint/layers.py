# SPDX-License-Identifier: MIT
"""Who may include whom: a folder is a layer. Own header first, paths always carry the folder."""

import re

from rules import SRC, finish, sources

ALLOWED = {
    "include": set(),
    "basic": {"basic"},
    "ipc": {"ipc", "basic", "muster"},
    "board": {"board", "basic"},
    "http": {"http", "basic", "board", "twin"},
    "twin": {"twin", "basic", "board"},
    "state": {"state", "basic", "ipc", "muster"},
    "lib": {"lib", "basic", "ipc", "board", "http", "state", "muster"},
    "exec": {"exec", "basic"},
    "master": {"master", "basic", "board", "ipc", "state", "muster"},
    "worker": {"worker", "basic", "board", "http", "ipc", "twin", "exec", "muster"},
    "admin": {"admin", "basic", "board", "http", "muster"},
    "cli": {"cli", "basic", "muster"},
}
GENERATED = {"build-config.h"}
# of one layer for another: these headers alone
ONLY = {
    ("admin", "http"): {"http/parser.h", "http/chars.h"},
    ("http", "twin"): {"twin/truth.h"},
    ("master", "state"): {"state/url.h"},
}


def check_file(path):
    folder = path.relative_to(SRC).parts[0]
    where = path.relative_to(SRC.parent)
    includes = re.findall(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', path.read_text(), re.M)
    if folder not in ALLOWED:
        yield f"{where}: the folder {folder} is no known layer"
        return
    for kind, name in includes:
        layer = name.split("/")[0] if "/" in name else ""
        if folder == "include":
            if (kind == '"' and layer != "muster") or (layer == "systemd" and name != "systemd/sd-event.h"):
                yield f"{where}: a public header includes {name}; allowed: libc, systemd/sd-event.h and our own"
        elif kind == "<":
            if layer in ALLOWED or layer == "muster":
                yield f"{where}: {name} is ours, it takes quotes"
        elif not layer:
            if name not in GENERATED:
                yield f"{where}: {name} is included without its folder"
        elif layer not in ALLOWED[folder]:
            yield f"{where}: {folder} may not include {name}; allowed: {', '.join(sorted(ALLOWED[folder]))}"
        elif name not in ONLY.get((folder, layer), {name}):
            yield f"{where}: {folder} may not include {name}; allowed of {layer}: {', '.join(sorted(ONLY[folder, layer]))}"
        if name.endswith(".c"):
            yield f"{where}: a .c file is included: {name}"
    own = path.with_suffix(".h")
    if path.suffix == ".c" and own.exists() and includes[:1] != [('"', str(own.relative_to(SRC)))]:
        yield f"{where}: its own header is not the first"


files = list(sources(".c", ".h", under=SRC))
finish([error for path in files for error in check_file(path)], len(files))
