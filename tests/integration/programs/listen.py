# SPDX-License-Identifier: MIT
"""The least that a Python program does, with the standard library: as wsgi.py, and it says READY=1."""

import http.server
import os
import signal
import socket


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = b"hello\n"
        if path == "/pid":
            body = str(os.getpid()).encode()
        elif path == "/slow":
            with open(query, "rb") as gate:
                gate.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for the requests


if os.environ.get("LISTEN_PID") != str(os.getpid()):
    raise SystemExit("no socket for this process")

server = Server(None, Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.timeout = 0.05
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while not stopping:  # shutdown() needs a thread, which waits forever if the signal finds a lock of threading's taken
    server.handle_request()
server.server_close()
