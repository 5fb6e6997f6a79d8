# SPDX-License-Identifier: MIT
"""How connections are shared among four workers of one socket, beside nginx, and what it costs: CPU of the workers for a connection
with one request (`wrk -t1 -c64`), as it is, without handing connections over, and with plain EPOLLEXCLUSIVE, in turns."""

import contextlib
import os
import pathlib
import re
import resource
import select
import shutil
import socket
import statistics
import subprocess
import time

import common

WORKERS = 4
CONNECTIONS = 1000
RUNS = int(os.environ.get("BENCH_RUNS", "10"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "2"))
NAMES = ("muster-worker", "plain-worker", "nginx")
PLAIN = "plain EPOLLEXCLUSIVE"


def libexec(folder, program, before=""):
    """A folder with a muster-worker that becomes @program."""
    folder.mkdir()
    script = folder / "muster-worker"
    script.write_text('#!/bin/sh\n%s\nexec %s "$@"\n' % (before, program.resolve()))
    script.chmod(0o755)
    return folder


def workers(pid):
    """Those below a process that serve: they are called like a worker and have no children (nginx's master has the same name), and of
    a keeper's children it is the first."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        serving = common.serving(pid)
        if serving != pid:
            found.append(serving)
            continue
        children = common.children(pid)
        todo += children
        if not children and pathlib.Path("/proc/%d/comm" % pid).read_text().strip() in NAMES:
            found.append(pid)
    return sorted(found)


def wait_workers(pid):
    while len(workers(pid)) < WORKERS:
        time.sleep(0.01)
    time.sleep(0.2)  # all have said that they are ready
    return workers(pid)


def sockets(pid):
    n = 0
    for entry in pathlib.Path("/proc/%d/fd" % pid).iterdir():
        with contextlib.suppress(OSError):
            n += os.readlink(entry).startswith("socket:")
    return n


def connect_slowly(port):
    clients = []
    for _ in range(CONNECTIONS):
        clients.append(socket.create_connection(("127.0.0.1", port)))
        clients[-1].sendall(common.REQUEST)
        assert clients[-1].recv(65536)
    return clients


def connect_at_once(port):
    clients, poll = [socket.socket() for _ in range(CONNECTIONS)], select.poll()
    for client in clients:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        poll.register(client, select.POLLOUT)
    fds = {client.fileno(): client for client in clients}
    while fds:
        for fd, _ in poll.poll():
            poll.unregister(fd)
            fds.pop(fd).sendall(common.REQUEST)
    for client in clients:
        client.setblocking(True)
        assert client.recv(65536)
    return clients


def shares(port, pids, connect):
    """What each worker holds, sorted."""
    before = {pid: sockets(pid) for pid in pids}
    clients = connect(port)
    found = sorted(sockets(pid) - n for pid, n in before.items())
    for client in clients:
        client.close()
    while any(sockets(pid) > n for pid, n in before.items()):
        time.sleep(0.01)
    return found


def share_rows(name, port, pids):
    for pattern, connect in (("one by one", connect_slowly), ("in a burst", connect_at_once)):
        found = [shares(port, pids, connect) for _ in range(RUNS)]
        deviations = [statistics.pstdev(f) for f in found]
        yield (name, pattern, "%d … %d" % (min(f[0] for f in found), max(f[-1] for f in found)),
               "%.1f / %.1f" % (statistics.median(deviations), max(deviations)))


@contextlib.contextmanager
def muster(folder, libexec_dir):
    config = common.muster_config(folder, workers=WORKERS)
    with common.service([common.MUSTERD, config], env=["MUSTER_LIBEXECDIR=%s" % libexec_dir]) as s:
        s.connect().close()
        yield s.port, wait_workers(s.process.pid)


@contextlib.contextmanager
def nginx(folder):
    port, config = common.free_port(), folder / "nginx.conf"
    config.write_text("daemon off; worker_processes %d; error_log stderr crit; pid %s/nginx.pid; events { worker_connections 4096; }\n"
                      "http { access_log off; server { listen 127.0.0.1:%d backlog=2048; location / { return 200 hello; } } }\n"
                      % (WORKERS, folder, port))
    process = subprocess.Popen([common.nginx(), "-c", str(config)])
    try:
        yield port, wait_workers(process.pid)
    finally:
        process.terminate()
        process.wait()


def cost(port, pids):
    """CPU of the workers for a connection with one request, and how many there were in a second."""
    before, begin = sum(map(common.cpu_usec, pids)), time.monotonic()
    done = subprocess.run(["wrk", "-t1", "-c64", "-d%ds" % SECONDS, "-H", "Connection: close", "http://127.0.0.1:%d/" % port],
                          stdout=subprocess.PIPE, text=True, check=True)
    n = int(re.search(r"(\d+) requests in", done.stdout).group(1))
    return (sum(map(common.cpu_usec, pids)) - before) / n, n / (time.monotonic() - begin)


def show_shares(running):
    print("Connections of each of %d workers, of %d, %d runs" % (WORKERS, CONNECTIONS, RUNS))
    rows = [("", "arriving", "fewest … most", "standard deviation, median / worst")]
    for name, (port, pids) in running.items():
        rows += share_rows(name, port, pids)
    common.show(rows)


def show_costs(running):
    results = {name: [] for name in running}
    for i in range(ROUNDS):
        names = list(running)
        for name in names[i % len(names):] + names[:i % len(names)]:
            results[name].append(cost(*running[name]))
    print("\nA connection with one request, medians of %d rounds of %d s" % (ROUNDS, SECONDS))
    rows = [("", "connections/s", "CPU us", "by " + PLAIN)]
    for name, found in results.items():
        ratio = statistics.median(a[0] / b[0] for a, b in zip(found, results[PLAIN]))
        rows.append((name, "%.0f" % statistics.median(f[1] for f in found), "%.1f" % statistics.median(f[0] for f in found),
                     "%.2f x" % ratio))
    common.show(rows)


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    real, plain = common.LIBEXEC / "muster-worker", common.BUILD / "tests/bench/plain-worker"
    alone = "unset MUSTER_INBOX_FDS"
    with common.folder() as top, contextlib.ExitStack() as stack:
        variants = {
            "as it is": libexec(top / "fair", real),
            "nothing handed over": libexec(top / "rotating", real, alone),
            PLAIN: libexec(top / "plain", plain, alone),
        }
        running = {name: stack.enter_context(muster(top, folder)) for name, folder in variants.items()}
        if common.nginx():
            running["nginx"] = stack.enter_context(nginx(top))
        show_shares(running)
        if shutil.which("wrk"):
            show_costs(running)
        else:
            print("wrk is not installed.")


if __name__ == "__main__":
    main()
