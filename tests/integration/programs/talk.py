# SPDX-License-Identifier: MIT
"""Says to other workers what it is told to say, and writes down what it hears: ../talk.py. It has nothing but the channel's socket."""

import json
import os
import socket

slot, pid = os.environ["MUSTER_WORKER"], os.getpid()
channel = socket.socket(fileno=int(os.environ["MUSTER_CHANNEL_FD"]))
channel.setblocking(True)
heard = os.open(os.environ["HEARD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def write(message):
    channel.sendall(json.dumps(message).encode() + b"\n")


def say(act, *rest):
    if act == "broadcast":
        write({"cmd": "MUSTER", "act": act, "data": rest[0]})
    elif act == "send":
        write({"cmd": "MUSTER", "act": act, "worker": rest[0], "data": rest[1]})
    elif act == "big":
        write({"cmd": "MUSTER", "act": "broadcast", "data": "x" * (rest[0] - 2)})
    elif act == "raw":
        write(rest[0])
    elif act == "line":
        channel.sendall(rest[0].encode() + b"\n")
    elif act == "storm":
        many = (json.dumps(rest[0]).encode() + b"\n") * 1000
        for _ in range(rest[1]):
            channel.sendall(many)
    elif act == "repeat":
        times, rest = rest[0], rest[1:]
        for _ in range(times):
            say(*rest)


write({"cmd": "MUSTER", "act": "ready"})
for line in channel.makefile("rb"):
    message = json.loads(line)
    ours = isinstance(message, dict) and message.get("cmd") == "MUSTER"
    if ours and message["act"] == "retire":
        break
    if isinstance(message, list) and message and message[0] in ("broadcast", "send", "big", "raw", "line", "repeat", "storm"):
        say(*message)
    elif not ours or message["act"] == "publish":
        os.write(heard, f"{slot} {pid} ".encode() + line)
