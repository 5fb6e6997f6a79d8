# SPDX-License-Identifier: MIT
"""The shared state: leases. At most one process has a name at a time, and its number is higher than all before."""

import time

import pytest

from state_program import until, wait_for
from state_stores import Lmdb

LONG = 60  # a time that no test waits for
TERM = 1.5  # one that may have to be waited for: who waits may ask again only when it is over
SOON = 5  # in which a lease that was given back is somebody else's
ALLOWANCE = 3  # seconds by which a take-over may be late for the scheduler's sake


def holder(leases, but=(), timeout=20):
    """Waits until one of these holds, of those who ask for it, and returns that one."""
    left = [lease for lease in leases if lease not in but]

    def find():
        return next((lease for lease in left if lease.turns() and lease.turns()[-1].held), None)

    return wait_for(list({id(lease.client): lease.client for lease in left}.values()), find, "a holder", timeout)


def refused(client):
    """Waits until the leases that this one waits for were refused at least once."""
    client.wait_connected()
    client.value(b"something")
    client.value(b"something")


def test_exclusive_among_three(store, client):
    """One has it; what it gives back the next one has; fences grow."""
    clients = [client(store.url) for _ in range(3)]
    leases = [c.lease(b"name", TERM) for c in clients]
    had, fences = [], []
    for _ in leases:
        lease = holder(leases, had)
        turn = lease.turns()[-1]
        fences.append(turn.fence)
        assert turn.is_held and turn.fence > 0
        for other in leases:
            if other is not lease and other not in had:
                seen = other.held()
                assert not seen.is_held and seen.fence == 0 and other.turns() == [] or not lease.held().is_held
        seen = lease.held()
        assert seen.fence == (turn.fence if seen.is_held else 0)
        had.append(lease)
        lease.release()
        lease.client.ping()
    assert fences == sorted(set(fences))


def test_a_killed_owner_is_followed_within_the_time(store, client):
    ttl = 1
    owner, heir = client(store.url), client(store.url)
    lease = owner.lease(b"name", ttl)
    first = lease.wait_held()
    waiting = heir.lease(b"name", ttl)
    refused(heir)
    seen = lease.held()
    killed = time.monotonic()
    owner.kill()
    second = waiting.wait_held()
    assert not seen.is_held or second.time >= seen.time  # not held: we stood still
    assert second.time <= killed + ttl + ALLOWANCE
    assert second.fence > first.fence


def test_an_owner_that_stands_still(store, client):
    """Another takes over; when it goes on it knows before anything else that it has lost it, and is told; it is asked for again."""
    ttl = 0.5
    owner, heir = client(store.url), client(store.url)
    owner.say("priority -100")
    lease = owner.lease(b"name", ttl)
    first = lease.wait_held()
    owner.ping()
    waiting = heir.lease(b"name", LONG)
    refused(heir)
    owner.stop()
    n, m = len(owner.told), len(lease.told)
    second = waiting.wait_held()
    assert second.fence > first.fence
    owner.say(f"held {lease.id}")
    owner.pump()
    owner.resume()
    asked = lease.wait(lambda told: told.kind == "v", m)
    assert not asked.is_held and asked.fence in (0, first.fence)
    told = lease.wait_held(False, m)
    assert not told.is_held and told.fence == 0
    before = [t for t in owner.told[n : asked.index] if t.kind != "l"]
    assert not before and not lease.turns()[-1].held
    assert waiting.held().is_held and waiting.held().fence == second.fence
    waiting.release()
    third = lease.wait_held(True, m)
    assert third.fence > second.fence


def test_a_renewed_lease_stays(store, client):
    """For many times its time, and the other gets nothing. Where this machine stood still it may be lost: then that was told."""
    for _ in range(3):
        a, b = client(store.url), client(store.url)
        lease = a.lease(b"name", 0.5)
        first = lease.wait_held()
        other = b.lease(b"name", 0.5)
        b.pump(1.5)  # nothing is to come
        others = other.held()
        still = lease.held()
        if still.is_held and still.fence == first.fence and len(lease.turns()) == 1:
            assert other.turns() == [] and not others.is_held
            return
        lease.wait_held(False)
        a.finish()
        b.finish()
    raise AssertionError("lost three times")


def test_a_released_lease_is_free_at_once(store, client):
    a, b = client(store.url), client(store.url)
    for i in range(10):
        lease = a.lease(b"name%d" % i, LONG)
        lease.wait_held()
        lease.release()
        a.value(b"something")  # what is asked of one handle is done in that order
        assert b.lease(b"name%d" % i, LONG).wait_held().fence > lease.turns()[0].fence


@pytest.mark.parametrize("way", ["release", "close", "end"])
def test_what_is_given_back_is_taken_soon(store, client, way):
    """By one that waits already, long before the time would be over. With lmdb workers are told (test_module_state.py)."""
    if isinstance(store, Lmdb):
        pytest.skip("these processes are no workers")
    a, b = client(store.url), client(store.url)
    lease = a.lease(b"name", LONG)
    first = lease.wait_held()
    waiting = b.lease(b"name", LONG)
    refused(b)
    {"release": lease.release, "close": a.close_handle, "end": a.finish}[way]()
    assert waiting.wait_held(timeout=SOON).fence > first.fence


def test_closing_gives_back(store, client):
    a, b = client(store.url), client(store.url)
    first = a.lease(b"name", TERM).wait_held()
    a.close_handle()
    waiting = b.lease(b"name", TERM)
    assert waiting.wait_held().fence > first.fence


def test_an_end_in_order_gives_back(store, client):
    # with lmdb there is little time for it, which a disk may need alone
    a, b = client(store.url + ("?sync=none" if isinstance(store, Lmdb) else "")), client(store.url)
    first = a.lease(b"name", LONG).wait_held()
    a.finish()
    assert b.lease(b"name", LONG).wait_held().fence > first.fence


def test_never_two_at_once(store, client):
    """Holders are released, killed and stopped in turns. What each writes down while it holds shows that fences grow in the order of
    the events in the store, and nobody is told before the one before has been through."""
    ttl = 0.4
    clients = [client(store.url) for _ in range(3)]
    leases = [c.lease(b"name", ttl) for c in clients]
    log, over = {}, 0
    for i in range(12):
        lease = holder(leases)
        c, turn = lease.client, lease.turns()[-1]
        c.ask_set(b"log/%03d" % i, b"%d" % turn.fence)
        seen = lease.held()
        if not seen.is_held or seen.fence != turn.fence:  # we stood still
            c.wait(lambda turn=turn, lease=lease: lease.turns()[-1] is not turn, "word of the loss")
            continue
        assert turn.time >= over
        log[i], over = turn.fence, seen.time
        if i % 3 == 0:
            lease.release()
        elif i % 3 == 1:
            c.kill()
            c.process.wait()
        else:
            c.stop()
            c.kill()
            c.process.wait()
        leases.remove(lease)
        if i % 3 != 0:
            clients.append(client(store.url))
            c = clients[-1]
        leases.append(c.lease(b"name", ttl))
        c.ping()
    fences = list(log.values())
    assert fences == sorted(set(fences)) and len(fences) >= 6
    c = clients[-1]
    written = {int(key[4:]): int(c.value(key)) for key in c.scan_all(b"log/")[0]}
    assert all(written.get(i, fence) == fence for i, fence in log.items())


def test_fences_outlive_everybody(store, client):
    """Also when nobody has had the lease for longer than its time."""
    fences = []
    for _ in range(3):
        c = client(store.url)
        fences.append(c.lease(b"name", 0.1).wait_held().fence)
        c.kill()
        c.process.wait()
    c = client(store.url)
    for _ in range(3):
        lease = c.lease(b"name", 0.1)
        fences.append(lease.wait_held().fence)
        lease.release()
    assert fences == sorted(set(fences))


def test_names_are_bytes_and_no_keys(store, client):
    c = client(store.url)
    names = [b"\0", b"a", b"a\0", b"\xff" * 511, bytes(range(256)), b"*", b"'"]
    leases = [c.lease(name, LONG) for name in names]
    for name, lease in zip(names, leases):
        lease.wait_held()
        assert c.get(name).error == "ENOENT"
        c.set(name, b"v", absent=True).ok()
        c.delete(name).ok()
    assert c.scan_all(b"")[0] == []
    assert all(lease.held().is_held for lease in leases)


def test_two_claims_of_one_process(store, client):
    """They exclude each other, on one handle as on two."""
    c = client(store.url)
    c.open(store.url, handle=1)
    leases = [c.lease(b"name", TERM, handle=i) for i in (0, 0, 1)]
    had, fences = [], []
    for _ in range(3):
        lease = holder(leases, had)
        fences.append(lease.turns()[-1].fence)
        assert sum(each.held().is_held for each in leases if each not in had) <= 1
        had.append(lease)
        lease.release()
    assert fences == sorted(set(fences))


def test_released_within_the_handler(store, client):
    a, b = client(store.url), client(store.url)
    with a.batched():
        lease = a.lease(b"name", LONG)
        lease.then(f"release {lease.id}")
    fence = lease.wait_held().fence
    a.value(b"something")
    assert b.lease(b"name", LONG).wait_held().fence > fence
    assert len(lease.turns()) == 1


def test_closed_within_the_handler(store, client):
    a, b = client(store.url), client(store.url)
    with a.batched():
        lease = a.lease(b"name", TERM)
        lease.then("close 0")
    fence = lease.wait_held().fence
    assert b.lease(b"name", TERM).wait_held().fence > fence
    a.ping()
    assert len(lease.turns()) == 1


def test_released_while_it_waits(store, client):
    """Who does not wait any more gets nothing."""
    a, b = client(store.url), client(store.url)
    lease = a.lease(b"name", LONG)
    lease.wait_held()
    waiting = b.lease(b"name", LONG)
    refused(b)
    waiting.release()
    b.ping()
    lease.release()
    a.value(b"something")
    c = client(store.url)
    c.lease(b"name", LONG).wait_held()
    b.ping()
    assert waiting.turns() == []


def test_released_before_the_answer(store, client):
    """It is not left behind in the store."""
    a, b = client(store.url), client(store.url)
    for i in range(20):
        with a.batched():
            lease = a.lease(b"name%d" % i, LONG)
            lease.release()
        a.value(b"something")
        a.value(b"something")
        assert lease.turns() == []
        b.lease(b"name%d" % i, LONG).wait_held()


def test_without_a_handler(store, client):
    a, b = client(store.url), client(store.url)
    a.say("lease 0 0 6e 60000000")
    zero = a.asked[0] = type(b.lease(b"other", LONG))(a, 0)
    until(lambda: zero.held().is_held, "the lease")
    assert zero.held().fence > 0
    waiting = b.lease(b"n", TERM)
    refused(b)
    assert waiting.turns() == []
    zero.release()
    waiting.wait_held()


def test_the_longest_lease(store, client):
    assert client(store.url).lease(b"name", 86400).wait_held().is_held


def test_lost_and_held_again(server, client):
    """The server goes; when the time is over it is not held, and when the server is back it is asked for again."""
    c = client(server.url)
    lease = c.lease(b"name", 0.5)
    first = lease.wait_held()
    server.kill()
    lost = lease.wait_held(False)
    assert not lost.is_held and lost.fence == 0
    n = len(lease.told)
    server.start()
    again = lease.wait_held(True, n)
    assert again.fence > first.fence and again.is_held


def test_a_short_absence_of_the_server_costs_no_long_lease(server, client):
    c = client(server.url)
    lease = c.lease(b"name", LONG)
    first = lease.wait_held()
    server.kill()
    c.wait(lambda: any(x.error != "0" for x in c.changes()), "the loss")
    assert lease.held().is_held
    server.start()
    c.set(b"key", b"v").ok()
    assert lease.held().is_held and lease.held().fence == first.fence and len(lease.turns()) == 1
    other = client(server.url).lease(b"name", LONG)
    refused(other.client)
    assert other.turns() == []
