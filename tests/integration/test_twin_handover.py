# SPDX-License-Identifier: MIT
"""Workers hand connections over to each other and are killed at random times: each connection is served by exactly one of them.

One worker has far fewer connections than the others, so that they hand over most of what they accept.
MUSTER_TWIN_SECONDS=600 makes the long run. What happens at every single point is tested in tests/unit/worker/test-siblings-death.c.
"""

import contextlib
import json
import multiprocessing
import os
import select
import socket
import sys
import time

import pytest
from twin import PATIENCE, Killer, master_slots
from worker_harness import DEADLINE, Client

SECONDS = int(os.environ.get("MUSTER_TWIN_SECONDS", 0))
TAKEOVERS = 20
HELD = 100  # connections, for each worker but one
BURST = 60
PIECE = 10  # bytes of a request


def slot_of(client):
    return json.loads(client.request("/whoami").body)["slot"]


def unbalance(m, workers):
    """Connections that stay open, none of which is the first worker's."""
    clients = [m.connect() for _ in range(workers * HELD)]
    mine = {1: [], 2: []}
    for client in clients:
        mine[min(slot_of(client), 2)].append(client)
    for client in mine[1]:
        client.close()
    m.wait_connections(len(mine[2]))
    assert mine[1] and mine[2]
    return mine[2]


def assert_hello(answer):
    assert (answer.status, answer.body) == (200, b"hello\n")


def send_pieces(clients, data):
    """A little of it to each, then a little more: of two workers that have the same connection, each would get some."""
    for at in range(0, len(data), PIECE):
        for client in clients:
            client.send(data[at : at + PIECE])


def burst(address):
    """Connections that come at once. Each is answered once for each request, and then closed in order."""
    clients = [Client(socket.create_connection(address, timeout=DEADLINE)) for _ in range(BURST)]
    for headers in b"", b"Connection: close\r\n":
        send_pieces(clients, b"GET / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        for client in clients:
            assert_hello(client.answer())
    for client in clients:
        assert client.at_end()
        client.close()


def send_bursts(address, stopping, total):
    while not stopping.is_set():
        burst(address)
        total.value += BURST


@contextlib.contextmanager
def bursts(m):
    """In a process of its own: one that shares an interpreter with who kills would stand still whenever somebody is killed."""
    fork = multiprocessing.get_context("fork")
    stopping, total = fork.Event(), fork.Value("Q", 0, lock=False)
    process = fork.Process(target=send_bursts, args=(m.socket_list[0][1].getsockname(), stopping, total))
    process.start()
    try:
        yield process.sentinel
    finally:
        stopping.set()
        process.join()
    assert process.exitcode == 0, "a connection was not served as it must be"
    print(f"{total.value} connections", file=sys.stdout)


@pytest.mark.parametrize("workers", [2, 4])
def test_handed_over_once(ready, workers):
    """No connection is lost, reset or answered twice, whoever dies while it is handed over."""
    m = ready(workers=workers)
    held = unbalance(m, workers)
    slots = master_slots(m)
    m.wait_until(lambda: sum(slot.twin > 0 for slot in slots()) == workers, "a twin for each worker")
    end = time.monotonic() + SECONDS
    with bursts(m) as ended, Killer(slots) as killer:
        n = 0
        while killer.takeovers() < TAKEOVERS or time.monotonic() < end:
            assert time.monotonic() < end + PATIENCE, "there are no take-overs"
            if select.select([ended], [], [], 0.005)[0]:
                break
            n += 1
            assert_hello(held[n % len(held)].request("/"))  # these live on, whoever serves them
    for client in held:
        assert_hello(client.request("/"))
        client.close()
    m.wait_connections(0)
