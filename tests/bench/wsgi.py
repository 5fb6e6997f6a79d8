# SPDX-License-Identifier: MIT
"""What cluster.js answers, for gunicorn."""

import os


def app(environ, start_response):
    body = b'{"pid":%d}\n' % os.getpid() if environ["PATH_INFO"] == "/whoami" else b"hello\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
