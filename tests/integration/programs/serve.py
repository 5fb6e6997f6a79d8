# SPDX-License-Identifier: MIT
"""uvicorn that lets those finish whom it has accepted, says READY=1, and takes all its sockets as what they are. What follows
is in muster-recipes(7) to the letter."""

import asyncio
import os
import socket

import uvicorn

from asgi import application


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        if self.started:
            notify("READY=1")

    async def shutdown(self, sockets=None):
        for server in self.servers:
            server.close()
        await asyncio.sleep(1)  # for requests that are on their way
        await super().shutdown(sockets=sockets)


async def announcing(scope, receive, send):
    # While the server goes, a kept connection ends with its next answer.
    async def send_announcing(message):
        if server.should_exit and message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        await send(message)

    await application(scope, receive, send_announcing)


server = Server(uvicorn.Config(announcing, access_log=False))
server.run(sockets=[socket.socket(fileno=3 + i) for i in range(int(os.environ["LISTEN_FDS"]))])
