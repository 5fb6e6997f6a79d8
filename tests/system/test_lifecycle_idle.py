# SPDX-License-Identifier: MIT
"""A service that leaves when it is idle, and clients that come in the very moment of leaving."""

import concurrent.futures
import http.client
import os
import random
import time

from lifecycle_machine import Service, kind, set_drop_in

CYCLES = 300
ROUNDS_MAX = 10 * CYCLES
CLIENTS = 4
JITTER = 0.008
STEP = 0.001


class Clients:
    """Several that come at about the same time, each on a new connection, and keep a record of what came of it."""

    def __init__(self, machine):
        self.machine = machine
        self.answered = 0
        self.failures = []
        self.moments = []
        self.pool = concurrent.futures.ThreadPoolExecutor(CLIENTS)

    def _ask(self, at, headers):
        connection = http.client.HTTPConnection('localhost')
        connection.sock = self.machine.socket()
        connection.sock.settimeout(30)
        time.sleep(max(0, at - time.monotonic()))  # the pace of the clients; nothing is waited for
        self.moments.append(time.time())
        try:
            connection.sock.connect(('127.0.0.1', 8080))
            connection.request('GET', '/hello', headers=headers)
            response = connection.getresponse()
            answer = response.status, response.read()
        finally:
            connection.close()
        assert answer == (200, b'hello\n')

    def come(self, pause):
        """All of them, after about that time."""
        at = time.monotonic() + pause
        asking = [self.pool.submit(self._ask, at + random.uniform(-JITTER, JITTER),
                                   {'Connection': 'close'} if i % 2 else {}) for i in range(CLIENTS)]
        for future in asking:
            try:
                future.result()
                self.answered += 1
            except Exception as e:
                self.failures.append(f'{time.monotonic():.6f}: {e!r}')


def invocation_of(machine):
    """Which run of the service it is; None: it has left again already."""
    try:
        return os.readlink(machine.live_path('/run/systemd/units/invocation:muster.service'))
    except FileNotFoundError:
        return None


def hits(moments, entries):
    """How many times somebody came while the service was leaving: from shortly before it said so (whenever journald has
    read it) until it had gone."""
    left = [int(entry['_SOURCE_REALTIME_TIMESTAMP']) / 1e6 for entry in entries]
    return sum(any(-0.002 <= moment - t <= 0.020 for moment in moments) for t in left)


def test_leaving_and_returning(machine):
    """Over 300 cycles of leaving and returning, under clients whose pause is steered to that of the service, no request
    is lost, refused or reset."""
    service = Service(machine, None)
    service.reset()
    service.configure(more='idle_exit = "20ms";')
    for unit in 'muster.socket', 'muster-control.socket':
        set_drop_in(machine, unit, 'test', '[Socket]\nTriggerLimitIntervalSec=0\n')
    machine.systemctl('start', 'muster.socket')

    clients = Clients(machine)
    runs, pause, rounds = [None], 0.03, 0
    while len(runs) <= CYCLES + 1 and rounds < ROUNDS_MAX:
        clients.come(pause)
        rounds += 1
        current = invocation_of(machine)
        if current is None:
            continue
        returned = current != runs[-1]
        if returned:
            runs.append(current)
        # It has left in two of three rounds.
        pause = max(JITTER, pause + (-STEP if returned else 2 * STEP))
    machine.wait_unit('muster.service', 'inactive')
    entries = machine.journal(kind('IDLE'))
    print(f'{rounds} rounds, {len(runs) - 1} runs, {len(entries)} times idle, pause at the end {pause * 1000:.0f} ms, '
          f'{clients.answered} answered, came while leaving: {hits(clients.moments, entries)}')

    assert not clients.failures
    assert clients.answered == rounds * CLIENTS
    assert len(entries) >= CYCLES
    assert hits(clients.moments, entries) >= CYCLES / 10
    unit = service.unit
    assert (unit.Result, unit.NRestarts, unit.ExecMainStatus) == ('success', '0', '0')
    socket = machine.unit('muster.socket')
    assert (socket.ActiveState, socket.Result) == ('active', 'success')
    assert not [m for m in machine.messages('muster.service') if 'SIGKILL' in m or 'ailed' in m]
