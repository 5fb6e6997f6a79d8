# SPDX-License-Identifier: MIT
"""The same with the standard library alone: a service as systemd wants it, with sockets by LISTEN_FDS, READY=1 and STATUS=."""

import http.server
import os
import signal
import socket
import threading

from wsgi import answer


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = answer(self.path)
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return 'a client'  # those of a unix socket have no address


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for the requests

    def __init__(self, fd):
        super().__init__(None, Handler, bind_and_activate=False)
        self.socket = socket.socket(fileno=fd)


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])


if os.environ.get('LISTEN_PID') != str(os.getpid()):
    raise SystemExit('no socket for this process')

os.setuid(os.getuid())  # as gunicorn does, to be sure
servers = [Server(3 + i) for i in range(int(os.environ['LISTEN_FDS']))]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for all threads; it is waited for below
for server in servers:
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
notify(f'READY=1\nSTATUS=serves {len(servers)} sockets')
signal.sigwait({signal.SIGTERM})
for server in servers:
    server.shutdown()
    server.server_close()
