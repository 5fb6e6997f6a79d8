# SPDX-License-Identifier: MIT
"""Every header can be included alone, and twice; the public ones in C99 and in C++ too, without a warning.

Arguments: the build directory, the compiler and its arguments."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from rules import SRC, finish, sources

build, compiler = sys.argv[1], sys.argv[2:]
common = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I", str(SRC), "-I", str(SRC / "include"), "-I", build]


def compile_header(job):
    name, language, command = job
    text = f'#include "{name}"\n#include "{name}"\nint nothing;\n'
    r = subprocess.run([*command, *common, "-x", language, "-"], input=text, capture_output=True, text=True)
    return f"{name} as {' '.join(command)}:\n{r.stderr}" if r.returncode else None


jobs = []
for header in sources(".h", under=SRC):
    public = "include" in header.relative_to(SRC).parts
    name = str(header.relative_to(SRC / "include" if public else SRC))
    jobs.append((name, "c", [*compiler, "-std=gnu11", "-D_GNU_SOURCE", "-Wno-unused-function"]))
    if public:
        jobs.append((name, "c", [*compiler, "-std=c99", "-pedantic", "-D_POSIX_C_SOURCE=200809L"]))
        for cxx in ("c++", "clang++"):
            if shutil.which(cxx):
                jobs.append((name, "c++", [cxx, "-std=c++11"]))

with ThreadPoolExecutor(os.cpu_count()) as pool:
    finish([error for error in pool.map(compile_header, jobs) if error], len(jobs))
