# SPDX-License-Identifier: MIT
"""An HTTP client that has no opinions: it never repeats a request and hides no error."""

import http.client
import json
import socket
import threading
import time

from machine import wait_for

PORT = 8080


class Connection(http.client.HTTPConnection):
    """A connection to the machine's loopback, or to a unix socket of it."""

    def __init__(self, machine, address=('127.0.0.1', PORT), timeout=30, receive_buffer=None):
        super().__init__('localhost', timeout=timeout)
        self.machine = machine
        self.address = address
        self.receive_buffer = receive_buffer
        self.connect()

    def connect(self):
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        self.sock = self.machine.socket(family)
        self.sock.settimeout(self.timeout)
        if self.receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        if family == socket.AF_UNIX:
            self.sock.connect(str(self.machine.live_path(self.address)))
        else:
            self.sock.connect(self.address)

    def get(self, path='/'):
        """The status and the body."""
        self.request('GET', path)
        response = self.getresponse()
        return response.status, response.read()


def get(machine, path='/', **options):
    """One request on a connection of its own."""
    connection = Connection(machine, **options)
    try:
        return connection.get(path)
    finally:
        connection.close()


def whoami(machine, **options):
    status, body = get(machine, '/whoami', **options)
    assert status == 200, body
    return json.loads(body)


def workers(machine, n=2, **options):
    """Who answers: {pid: slot} of N workers, from as many connections as it takes."""
    found = {}

    def found_all():
        answer = whoami(machine, **options)
        found[answer['pid']] = answer['slot']
        return len(found) == n
    wait_for(found_all, f'{n} workers answer', interval=0)
    return found


def processes(machine, app='default'):
    """{slot: what muster status says of that worker}."""
    status = json.loads(machine.run('muster', '--json', 'status', app).stdout)
    return {process['slot']: process for process in status['processes']}


class Load:
    """Clients that make one request after the other, each on a new connection, and keep a record of what came of it."""

    def __init__(self, machine, clients=3, path='/whoami', **options):
        self.machine = machine
        self.path = path
        self.options = options
        self.answered = 0
        self.failures = []
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def _run(self):
        while not self.ending.is_set():
            try:
                status, _ = get(self.machine, self.path, **self.options)
                failure = None if status == 200 else f'status {status}'
            except (OSError, http.client.HTTPException) as e:
                failure = repr(e)
            with self.lock:
                if failure:
                    self.failures.append(f'{time.monotonic():.3f}: {failure}')
                else:
                    self.answered += 1
