# SPDX-License-Identifier: MIT
"""For uvicorn: as wsgi.py."""

import asyncio
import os


def wait_for(path):
    with open(path, "rb") as gate:
        gate.read()


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b"hello\n"
    if scope["path"] == "/pid":
        body = str(os.getpid()).encode()
    elif scope["path"] == "/slow":
        await asyncio.get_running_loop().run_in_executor(None, wait_for, scope["query_string"].decode())
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
