# SPDX-License-Identifier: MIT
"""The shared state: messages between processes. With lmdb they go through the master: test_state_worker.py."""

import os

import pytest

from state_program import MESSAGE_MAX, Pattern, results_of

EVERY_BYTE = bytes(range(256))
CHANNELS = {"nul": b"\0", "every byte": EVERY_BYTE, "longest": b"\xff" * 511, "star": b"*", "glob": b"news.*", "half a character": b"\xc3",
            "quotes": b'"; drop table x; --', "upper case": b"Upper", "64 bytes": b"x" * 64}


@pytest.fixture
def publishing(store):
    if not store.can_publish:
        pytest.skip("only a worker can publish there")
    return store


def test_lmdb_outside_of_a_worker_cannot_publish(lmdb, client):
    c = client(lmdb.url)
    r = c.publish(b"channel", b"message")
    assert r.error == "EOPNOTSUPP"
    c.set(b"key", b"v").ok()


def test_who_publishes_gets_it_too(publishing, client):
    c = client(publishing.url)
    s = c.subscribe(b"channel").effective()
    c.publish(b"channel", b"message").ok()
    s.wait_messages(None, b"message")


def test_messages_reach_all_processes(publishing, client):
    """In the order in which one process publishes, without the loss of any."""
    n = 1000
    a, b, c = (client(publishing.url) for _ in range(3))
    subscriptions = [x.subscribe(b"channel").effective() for x in (b, c, c)]
    results = results_of([a.ask_publish(b"channel", b"%d" % i) for i in range(n)])
    assert {r.error for r in results} == {"0"}
    for s in subscriptions:
        s.wait_messages(None, *(b"%d" % i for i in range(n)))


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
def test_channels_and_messages_are_bytes(publishing, client, channel):
    a, b = client(publishing.url), client(publishing.url)
    s = a.subscribe(channel).effective()
    others = [a.subscribe(name).effective() for name in (channel[:-1] + b"!", b"upper", b"news.1", b"x" * 63, b"x" * 65) if name != channel]
    messages = [b"", b"\0", EVERY_BYTE, b"\r\n", b"'", b"\\x00", b"\xff" * 100]
    for message in messages:
        b.publish(channel, message).ok()
    s.wait_messages(None, *messages)
    assert all(other.messages() == [None] for other in others)


def test_the_largest_message(publishing, client):
    """Exactly 4096 bytes, of any value, on the longest channel."""
    a, b = client(publishing.url), client(publishing.url)
    s = a.subscribe(b"\xff" * 511).effective()
    messages = [os.urandom(MESSAGE_MAX), b"\0" * MESSAGE_MAX, b"\xff" * MESSAGE_MAX, b"'" * MESSAGE_MAX, b"\\" * MESSAGE_MAX]
    for message in messages:
        b.publish(b"\xff" * 511, message).ok()
    s.wait_messages(None, *messages)
    r = b.publish(b"\xff" * 511, Pattern(MESSAGE_MAX + 1))
    assert r.refused and r.error == "EMSGSIZE"


def test_who_has_not_subscribed_yet_gets_nothing(publishing, client):
    a, b = client(publishing.url), client(publishing.url)
    a.publish(b"channel", b"early").ok()
    s = b.subscribe(b"channel").effective()
    a.publish(b"channel", b"late").ok()
    s.wait_messages(None, b"late")


def test_the_same_message_twice_is_two(publishing, client):
    a, b = client(publishing.url), client(publishing.url)
    s = b.subscribe(b"channel").effective()
    results_of([a.ask_publish(b"channel", b"same") for _ in range(100)])
    s.wait_messages(None, *([b"same"] * 100))


def test_several_subscriptions_to_one_channel(publishing, client):
    """Each has its own notice and every message; when one ends the others stay."""
    c = client(publishing.url)
    first = c.subscribe(b"channel").effective()
    second = c.subscribe(b"channel").effective()
    c.publish(b"channel", b"1").ok()
    for s in (first, second):
        s.wait_messages(None, b"1")
    first.unsubscribe()
    c.publish(b"channel", b"2").ok()
    second.wait_messages(None, b"1", b"2")
    assert first.messages() == [None, b"1"]
    third = c.subscribe(b"channel").effective()
    c.publish(b"channel", b"3").ok()
    third.wait_messages(None, b"3")


def test_unsubscribed_within_the_handler(publishing, client):
    """Nothing comes any more, of that round or later; the others of that channel get theirs."""
    a, b = client(publishing.url), client(publishing.url)
    ends = b.subscribe(b"channel").effective()
    stays = b.subscribe(b"channel").effective()
    ends.then(f"unsubscribe {ends.id}")
    b.ping()
    results_of([a.ask_publish(b"channel", b"%d" % i) for i in range(10)])
    stays.wait_messages(None, *(b"%d" % i for i in range(10)))
    assert ends.messages() == [None, b"0"]


def test_unsubscribed_within_the_notice(publishing, client):
    c = client(publishing.url)
    with c.batched():
        ends = c.subscribe(b"channel")
        ends.then(f"unsubscribe {ends.id}")
    ends.effective()
    stays = c.subscribe(b"channel").effective()
    c.publish(b"channel", b"1").ok()
    stays.wait_messages(None, b"1")
    assert ends.messages() == [None]


def test_another_one_is_unsubscribed_within_the_handler(publishing, client):
    """Of two on one channel, whichever is called first ends both."""
    c = client(publishing.url)
    pair = [c.subscribe(b"channel").effective() for _ in range(2)]
    with c.batched():
        pair[0].then(f"unsubscribe {pair[1].id}")
        pair[1].then(f"unsubscribe {pair[0].id}")
        c.ask_publish(b"channel", b"1")
    last = c.subscribe(b"other").effective()
    c.publish(b"channel", b"2").ok()
    c.publish(b"other", b"end").ok()
    last.wait_messages(None, b"end")
    assert sorted(len(s.messages()) for s in pair) == [1, 3]


def test_closed_within_the_handler(publishing, client):
    c = client(publishing.url)
    s = c.subscribe(b"channel").effective()
    s.then("close 0")
    c.ping()
    for i in range(5):
        c.ask_publish(b"channel", b"%d" % i)
    c.wait(lambda: any(t.kind == "k" for t in c.told), "close")
    c.ping()
    assert s.messages() == [None, b"0"]


def test_closing_ends_subscriptions(publishing, client):
    a, b = client(publishing.url), client(publishing.url)
    s = b.subscribe(b"channel").effective()
    b.close_handle()
    a.publish(b"channel", b"1").ok()
    assert b.open(publishing.url) == "0"
    again = b.subscribe(b"channel").effective()
    a.publish(b"channel", b"2").ok()
    again.wait_messages(None, b"2")
    assert s.messages() == [None]


def test_unsubscribed_before_it_takes_effect(publishing, client):
    """It may be told that it takes effect, or not; the store's idea of who has subscribed is right afterwards."""
    c = client(publishing.url)
    for _ in range(20):
        with c.batched():
            s = c.subscribe(b"channel")
            s.unsubscribe()
            kept = c.subscribe(b"channel")
        kept.effective()
        c.publish(b"channel", b"1").ok()
        kept.wait_messages(None, b"1")
        kept.unsubscribe()
        assert s.messages() == []


def test_many_channels(publishing, client):
    a, b = client(publishing.url), client(publishing.url)
    subscriptions = [b.subscribe(b"channel%d" % i) for i in range(200)]
    for s in subscriptions:
        s.effective()
    results_of([a.ask_publish(b"channel%d" % i, b"%d" % i) for i in range(200)])
    for i, s in enumerate(subscriptions):
        s.wait_messages(None, b"%d" % i)


def test_messages_among_operations(publishing, client):
    """A subscription does not disturb the order or the answers of what else is asked for."""
    c = client(publishing.url)
    s = c.subscribe(b"channel").effective()
    asked = []
    for i in range(500):
        asked += [c.ask_add(b"n", 1), c.ask_publish(b"channel", b"%d" % i)]
    results = results_of(asked)
    assert [r.ok().number for r in results[::2]] == list(range(1, 501))
    s.wait_messages(None, *(b"%d" % i for i in range(500)))


def test_the_notice_comes_again_after_the_connection_was_lost(server, client):
    """Every subscription has its notice again, and messages after it."""
    c = client(server.url)
    subscriptions = [c.subscribe(name).effective() for name in (b"one", b"two", b"two")]
    server.kill()
    lost = c.wait(lambda: next((x for x in c.changes() if x.error != "0"), None), "the loss")
    server.start()
    for s in subscriptions:
        s.wait(lambda told: told.kind == "s" and told.data is None and told.index > lost.index)
    c.publish(b"one", b"1").ok()
    c.publish(b"two", b"2").ok()
    for s, message in zip(subscriptions, (b"1", b"2", b"2")):
        s.wait_messages(None, None, message)
    assert c.is_connected()


def test_subscribed_while_the_store_is_away(server, client):
    c = client(server.url)
    c.set(b"key", b"1").ok()
    server.kill()
    c.wait(lambda: any(x.error != "0" for x in c.changes()), "the loss")
    s = c.subscribe(b"channel")
    c.ping()
    assert s.messages() == []
    server.start()
    s.effective()
    c.publish(b"channel", b"1").ok()
    s.wait_messages(None, b"1")
