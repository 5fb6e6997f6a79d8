# SPDX-License-Identifier: MIT
"""For gunicorn: /pid, /slow?FIFO (answers when every writer has closed it), anything else: hello."""

import os


def application(environ, start_response):
    body = b"hello\n"
    if environ["PATH_INFO"] == "/pid":
        body = str(os.getpid()).encode()
    elif environ["PATH_INFO"] == "/slow":
        with open(environ["QUERY_STRING"], "rb") as gate:
            gate.read()
    start_response("200 OK", [("Content-Length", str(len(body))), ("Content-Type", "text/plain")])
    return [body]
