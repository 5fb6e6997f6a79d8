#!/usr/bin/python3 -IS
# SPDX-License-Identifier: MIT
"""A companion, or a worker, that does what its words say and writes down what happens to it: agent.py LOG NAME [WORD...]

ready         says READY=1, an agent STATUS=fine as well
gate=FIFO     before that it waits until somebody has opened the FIFO for writing and closed it
fails=FILE    exits with status 3 at the start, if there is such a file
watchdog=FIFO says WATCHDOG=1, once, when it has waited as at the gate
hangs=FIFO    says WATCHDOG=trigger when it has waited as at the gate
says=FIFO     broadcasts "hello" on its channel when it has waited as at the gate
hears         writes down what comes there
child         starts a process that leaves its group and stays
last=FIFO     told to end, it waits as at the gate
deaf          is not told anything by SIGTERM
"""

import os
import select
import signal
import socket
import sys

log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
name = sys.argv[2]
words = dict((word + "=").split("=")[:2] for word in sys.argv[3:])
woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)


def write(what):
    os.write(log, f"{name} {what}\n".encode())


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def wait(path=None):
    """Returns whether the FIFO was opened and closed, and no signal came before."""
    fds = [woken] + ([os.open(path, os.O_RDONLY | os.O_NONBLOCK)] if path else [])
    ready = select.select(fds, [], [])[0]
    if woken not in ready:
        while select.select(fds, [], [])[0] and os.read(fds[1], 1):
            pass
    return woken not in ready


def end(signo):
    write(f"end {signal.Signals(signo).name}")
    if "last" in words:
        wait(words["last"])
    write("ended")
    sys.exit(0)


signal.set_wakeup_fd(wakes)
for signo in signal.SIGTERM, signal.SIGINT:
    signal.signal(signo, lambda *_: None)
if "deaf" in words:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
write(f"start {os.getpid()}")
if "fails" in words and os.path.exists(words["fails"]):
    sys.exit(3)
if "child" in words:
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    write(f"child {child}")
if "gate" in words and not wait(words["gate"]):
    end(os.read(woken, 1)[0])
if "ready" in words:
    write("ready")
    notify("READY=1" + ("\nSTATUS=fine" if "MUSTER_AGENT" in os.environ else ""))
if "watchdog" in words and wait(words["watchdog"]):
    notify("WATCHDOG=1")
if "hangs" in words and wait(words["hangs"]):
    notify("WATCHDOG=trigger")
if "says" in words and wait(words["says"]):
    os.write(int(os.environ["MUSTER_CHANNEL_FD"]), b'{"cmd":"MUSTER","act":"broadcast","data":"hello"}\n')
while "hears" in words and woken not in select.select([woken, int(os.environ["MUSTER_CHANNEL_FD"])], [], [])[0]:
    write("hears " + os.read(int(os.environ["MUSTER_CHANNEL_FD"]), 1000).decode().strip())
wait()
end(os.read(woken, 1)[0])
