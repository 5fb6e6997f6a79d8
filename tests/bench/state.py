#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The shared state through the API beside the bare library: LMDB with a transaction for each operation, and hiredis with as many
commands under way. Each is one process on any CPU; that of the API has a thread for LMDB's writes."""

import os
import pathlib
import sys

import common
import compare

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import state_stores  # pylint: disable=wrong-import-position

MSEC = int(os.environ.get("BENCH_STATE_MSEC", "400"))
WINDOWS = (1, 16, 256)


def show(title, operation, ours, bare):
    for window in WINDOWS:
        print("%s, %s, %d under way:" % (title, operation, window))
        commands = {"muster": ours(operation, window), "bare": bare(operation, window)}
        compare.table(compare.rounds(commands), "muster", operation + "s")


def lmdb(sync):
    with common.folder() as d:
        (d / "muster").mkdir()
        (d / "bare").mkdir()

        def ours(operation, window):
            return [compare.program("state"), "muster", operation, str(window), str(MSEC), "lmdb:%s/muster?sync=%s" % (d, sync)]

        def bare(operation, window):
            return [compare.program("state"), "lmdb", operation, str(window), str(MSEC), "%s/bare" % d, sync]

        if sync == "data":
            show("LMDB", "get", ours, bare)
        show("LMDB, sync=%s" % sync, "set", ours, bare)


def redis():
    if state_stores.Redis.missing():
        print(state_stores.Redis.missing())
        return
    store = state_stores.Redis()
    store.start()
    try:

        def ours(operation, window):
            return [compare.program("state"), "muster", operation, str(window), str(MSEC), store.url]

        def bare(operation, window):
            return [compare.program("state"), "hiredis", operation, str(window), str(MSEC), str(store.socket)]

        for operation in ("get", "set"):
            show("Redis", operation, ours, bare)
    finally:
        store.close()


def main():
    os.environ["MUSTER_PLUGINDIR"] = str(common.BUILD / "src/state")
    for sync in ("data", "none"):
        lmdb(sync)
    redis()


if __name__ == "__main__":
    sys.exit(main())
