# SPDX-License-Identifier: MIT
"""What the measurements of the library share: one program beside its peers, in turns, so that what else the machine does hits all
of them alike. Each run prints a line {"operations": …, "wall": usec, "cpu": usec}, and a row shows the medians."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess

import common

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))


def program(name):
    return str(common.BUILD / "tests/bench" / ("bench-" + name))


def node():
    """The command of Node.js, or None."""
    wanted = os.environ.get("MUSTER_NODE", "/usr/bin/node")
    return shutil.which(wanted)


def node_command(*args):
    """For a run by node.js, or None without Node.js."""
    return [node(), str(HERE / "node.js"), *map(str, args)] if node() else None


def run(command, cpu=None):
    """One run, on one CPU if that is given. Its line, with rates added."""
    pin = (lambda: os.sched_setaffinity(0, {cpu})) if cpu is not None else None
    # pylint: disable=subprocess-popen-preexec-fn
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, preexec_fn=pin, timeout=120)
    result = json.loads(done.stdout)
    result["rate"] = result["operations"] * 1e6 / result["wall"]
    result["cost"] = result["cpu"] / result["operations"]
    return result


def some_cpu():
    """The last one that may be used: the first takes most interrupts."""
    return max(os.sched_getaffinity(0))


def rounds(commands, cpu=None, n=None):
    """The results of each command by its name, run in turns; those that are None are left out."""
    commands = {name: c for name, c in commands.items() if c}
    results = {name: [] for name in commands}
    for i in range(n or ROUNDS):
        names = list(commands)
        for name in names[i % len(names):] + names[:i % len(names)]:
            results[name].append(run(commands[name], cpu))
    return results


def median(results, key):
    return statistics.median(r[key] for r in results)


def ratios(a, b, key):
    """The median of a/b over the rounds: what was measured at about the same time."""
    return statistics.median(x[key] / y[key] for x, y in zip(a, b))


def table(results, first, unit, scale=1.0):
    """Rows of rate and cost. The last two columns: @first compared with each."""
    rows = [("", unit + "/s", "best", "CPU us", "%s is" % first, "by CPU")]
    for name, r in results.items():
        same = name == first
        rows.append((name, "%.0f" % (median(r, "rate") * scale), "%.0f" % (max(x["rate"] for x in r) * scale),
                     "%.2f" % (median(r, "cost") / scale),
                     "" if same else "%.2f x" % ratios(results[first], r, "rate"),
                     "" if same else "%.2f x" % (1 / ratios(results[first], r, "cost"))))
    common.show(rows)
    print()
