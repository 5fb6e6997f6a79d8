#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""From the first connection to the first byte of the answer, through systemd-socket-activate, beside a minimal C program and nginx."""

import os
import statistics
import sys
import time

import common

RUNS = int(os.environ.get("BENCH_RUNS", "41"))


def once(command, port=None, env=()):
    with common.service(command, port=port, env=env) as s:
        start = time.perf_counter()
        s.connect().close()
        return (time.perf_counter() - start) * 1000


def main():
    with common.folder() as d:
        config = common.muster_config(d)
        variants = {
            "minimal C program": lambda: once([common.MINIMAL]),
            "muster, 2 workers": lambda: once([common.MUSTERD, config]),
        }
        if common.nginx():
            def run_nginx():
                port = common.free_port()
                return once([common.nginx(), "-c", common.nginx_config(d, port)], port=port, env=["NGINX=3;"])
            variants["nginx, 2 workers"] = run_nginx
        times = {name: [] for name in variants}
        for _ in range(RUNS):  # interleaved: the machine's speed drifts
            for name, run in variants.items():
                times[name].append(run())

    base = times["minimal C program"]
    rows = [("", "median ms", "fastest ms", "median of ratios", "ratio of fastest")]
    for name, t in times.items():
        ratio = statistics.median(a / b for a, b in zip(t, base))
        rows.append((name, "%.2f" % statistics.median(t), "%.2f" % min(t), "%.2f" % ratio, "%.2f" % (min(t) / min(base))))
    print("First connection to first byte, %d runs each:" % RUNS)
    common.show(rows)


if __name__ == "__main__":
    sys.exit(main())
