# SPDX-License-Identifier: MIT
"""The shared state in files, of the workers of an app: their messages go through the master."""

import contextlib
import json
import os
import select
import signal
import socket

import pytest

from harness import DEADLINE, tcp
from state_program import MESSAGE_MAX, PLUGINS, PROGRAM, Client, results_of, wait_for

N = 3


class App:
    """Workers of musterd, told what to do over a socket each."""

    def __init__(self, start, store):
        self.path, self.store, self.clients = store.folder / "commands", store, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        command = ", ".join(json.dumps(str(word)) for word in (PROGRAM, self.path))
        environment = f'environment = {{ MUSTER_PLUGINDIR = "{PLUGINS}"; }};'
        self.master = start(f'workers: {{ count = {N}; soak = "20ms"; start_timeout = "1min"; wait_ready = true; }};',
                            app=f'kind = "program"; command = [ {command} ]; {environment}', sockets=[("http", tcp())])
        self.workers = [self.next() for _ in range(N)]
        self.master.wait_ready()

    def next(self):
        """The next that has been started, with the store open."""
        assert select.select([self.listener], [], [], DEADLINE)[0], self.master.stderr()
        c = Client.of_connection(self.listener.accept()[0])
        self.clients.append(c)
        assert c.open(self.store.url) == "0"
        return c

    def close(self):
        for c in self.clients:
            assert not c.broken, c.broken
            c.close()
        self.listener.close()


@pytest.fixture
def app(start, lmdb):
    with contextlib.closing(App(start, lmdb)) as a:
        yield a


def test_messages_reach_all_workers(app):
    """Who publishes and the others, in order, each once."""
    subscriptions = [c.subscribe(b"channel").effective() for c in app.workers]
    wanted = [None]
    for i, c in enumerate(app.workers):
        sent = [b"%d/%d" % (i, k) for k in range(100)]
        assert {r.error for r in results_of([c.ask_publish(b"channel", message) for message in sent])} == {"0"}
        wanted += sent
        for s in subscriptions:
            s.wait_messages(*wanted)


def test_channels_and_messages_are_bytes(app):
    a, b, c = app.workers
    every = bytes(range(256))
    for channel in (b"\0", every, b"\xff" * 511, b'"}\n{"'):
        subscriptions = [x.subscribe(channel).effective() for x in (b, c)]
        other = b.subscribe(channel[:-1] + b"!").effective()
        messages = [b"", b"\0", every, b"\n", b'"', os.urandom(MESSAGE_MAX), b"\xff" * MESSAGE_MAX]
        for message in messages:
            a.publish(channel, message).ok()
        for s in subscriptions:
            s.wait_messages(None, *messages)
        assert other.messages() == [None]


def test_they_share_what_is_kept(app):
    asked = [c.ask_add(b"n", 1) for _ in range(500) for c in app.workers]
    assert sorted(r.ok().number for r in results_of(asked)) == list(range(1, 1501))


def test_two_handles_and_two_stores_of_a_worker(app):
    """A message is for the handles of that store, once each, and not for those of another one."""
    a, b, _ = app.workers
    b.open(app.store.url, handle=1)
    b.open(f"lmdb:{app.store.folder}/other", handle=2)
    subscriptions = [b.subscribe(b"channel", handle=i).effective() for i in range(3)]
    a.publish(b"channel", b"1").ok()
    subscriptions[1].wait_messages(None, b"1")  # what different processes publish comes in any order
    b.publish(b"channel", b"2", handle=0).ok()
    b.publish(b"channel", b"other", handle=2).ok()
    subscriptions[0].wait_messages(None, b"1", b"2")
    subscriptions[1].wait_messages(None, b"1", b"2")
    subscriptions[2].wait_messages(None, b"other")


def test_a_stranger_hears_nothing(app, client):
    """A process that is no worker of the app shares what is kept, and no messages."""
    stranger = client(app.store.url)
    s = stranger.subscribe(b"channel")
    app.workers[0].publish(b"channel", b"1").ok()
    app.workers[0].set(b"key", b"v").ok()
    assert stranger.value(b"key") == b"v"
    assert stranger.publish(b"channel", b"2").error == "EOPNOTSUPP"
    assert [data for data in s.messages() if data is not None] == []


def test_a_worker_that_was_killed(app):
    """Its lease and its place are another one's, and the others' messages go on; who comes in its place hears them too."""
    a, b, c = app.workers
    leases = [x.lease(b"name", 0.5) for x in app.workers]
    holder = wait_for(app.workers, lambda: next((lease for lease in leases if lease.turns()), None), "a holder")
    fence = holder.turns()[0].fence
    subscriptions = {x: x.subscribe(b"channel").effective() for x in app.workers}
    victim = holder.client
    os.kill(victim.pid, signal.SIGKILL)
    replacement = app.next()
    subscriptions[replacement] = replacement.subscribe(b"channel").effective()
    left = [x for x in (a, b, c) if x is not victim]
    follower = wait_for(left, lambda: next((x for x in leases if x.client in left and x.turns()), None), "who takes over")
    assert follower.turns()[0].fence > fence
    app.master.wait_until(lambda: len(app.master.slots()) == N, "its replacement")
    until_heard(left[0], subscriptions[replacement])
    left[1].publish(b"channel", b"again").ok()
    for x in (*left, replacement):
        subscriptions[x].wait(lambda told: told.kind == "s" and told.data == b"again")


def until_heard(publisher, subscription):
    """The master passes on to those that are ready: publishes until it is."""
    for _ in range(1000):
        publisher.publish(b"channel", b"?").ok()
        publisher.pump(0.01)
        subscription.client.pump()
        if b"?" in subscription.messages():
            return
    raise AssertionError("it is not heard")
