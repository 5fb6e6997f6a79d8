# SPDX-License-Identifier: MIT
"""The shared state: asking for keys, a page at a time."""

import pytest

from state_program import KEY_MAX, PAGE_MAX, results_of


def fill(client, keys, value=b"v"):
    keys = list(keys)
    for first in range(0, len(keys), 5000):
        assert {r.error for r in results_of([client.ask_set(key, value) for key in keys[first : first + 5000]])} == {"0"}
    return keys


def check(store, found, wanted):
    """Those of Redis may come twice, and in no order."""
    if store.is_ordered:
        assert found == sorted(wanted)
    else:
        assert set(found) == set(wanted)


@pytest.mark.parametrize("limit", [None, 1, 7, 1000])
def test_pages(store, client, limit):
    """Every key that has the prefix, and no other."""
    c = client(store.url)
    n = 60 if limit == 1 else 1500
    wanted = fill(c, [b"in/%05d" % i for i in range(n)])
    fill(c, [b"in", b"im/1", b"in.", b"in0", b"io/1", b"IN/1", b"\0in/", b"\xff"])
    found, pages = c.scan_all(b"in/", limit=limit)
    check(store, found, wanted)
    if store.is_ordered:
        assert n // (limit or 100) <= pages <= n // (limit or 100) + 1


def test_all_keys(store, client):
    """No prefix is a prefix of all; and what the store keeps for itself is no key."""
    c = client(store.url)
    wanted = fill(c, [b"\0", b"\0\0", b"a", b"\xff", b"\xff" * KEY_MAX, b"muster", b"*"])
    c.set(b"gone", b"v").ok()
    c.delete(b"gone").ok()
    c.lease(b"lease", 10).wait_held()
    c.add(b"n", 1, ttl=1000000000).ok()
    for prefix in (b"", None):
        check(store, c.scan_all(prefix)[0], [*wanted, b"n"])


def test_no_keys(store, client):
    c = client(store.url)
    for prefix in (b"", b"a"):
        assert c.scan_all(prefix)[0] == []


def test_prefixes_are_bytes(store, client):
    """Nothing in a prefix is a pattern."""
    c = client(store.url)
    heads = [b"*", b"?", b"[a]", b"[^a]", b"\\", b"\\*", b"%", b"_", b"\0", b"'", b'"', b"a*", b"a%", b"a_", b"a\\", b"\xff", b"\xff\xff", b"\x80",
             "é".encode(), b"\xc3", b"{a}", b" ", b"\n", b"a\0", b"$1", b"^", b"-", b"]", b"[", b"x" * KEY_MAX, b"\xff" * KEY_MAX]
    keys = fill(c, sorted({head + tail for head in heads for tail in (b"", b"1", b"\xff", b"*") if len(head + tail) <= KEY_MAX} | {b"a", b"aa", b"ab", b"b"}))
    for prefix in [*heads, b"a", b"x", b"xx", b"\xff" * (KEY_MAX - 1)]:
        check(store, c.scan_all(prefix)[0], [key for key in keys if key.startswith(prefix)])


def test_keys_that_come_and_go_meanwhile(store, client):
    """Those that are there from the first page to the last are told of, whatever else comes and goes."""
    n = 5000
    c, other = client(store.url), client(store.url)
    wanted = set(fill(c, [b"k/%05d" % (2 * i) for i in range(n)]))
    fleeting = fill(other, [b"k/%05d" % (2 * i + 1) for i in range(0, n, 3)])
    found, cursor, page, asked = [], None, 0, []
    while page == 0 or cursor is not None:
        r = c.scan(b"k/", cursor, limit=250).ok()
        found += r.keys
        cursor, page = r.cursor, page + 1
        asked += [other.ask_delete(key) for key in fleeting[page * 20 : page * 20 + 20]]
        asked += [other.ask_set(b"k/%05d" % (2 * i + 1), b"new") for i in range(page * 50, page * 50 + 50)]
        asked += [other.ask_set(b"k/new/%d/%d" % (page, i), b"new") for i in range(50)]
        other.pump()
        assert page < 1000, "no end"
    results_of(asked)
    assert wanted <= set(found)
    assert all(key.startswith(b"k/") for key in found)
    if store.is_ordered:
        assert found == sorted(set(found))


def test_the_key_of_the_cursor_is_deleted(store, client):
    """Those behind it are told of all the same."""
    c = client(store.url)
    wanted = fill(c, [b"k/%03d" % i for i in range(300)])
    first = c.scan(b"k/", limit=10).ok()
    for key in first.keys:
        c.delete(key).ok()
    found, cursor = [*first.keys], first.cursor
    while cursor is not None:
        r = c.scan(b"k/", cursor, limit=10).ok()
        found += r.keys
        cursor = r.cursor
    check(store, found, wanted)


def test_pages_of_long_keys(store, client):
    c = client(store.url)
    wanted = fill(c, [b"k" * (KEY_MAX - 5) + b"%05d" % i for i in range(PAGE_MAX + 50)])
    check(store, c.scan_all(b"k", limit=PAGE_MAX)[0], wanted)


def test_scans_of_two_handles_at_once(store, client):
    """Cursors belong to nobody: another process may go on with it."""
    a, b = client(store.url), client(store.url)
    wanted = fill(a, [b"k/%04d" % i for i in range(1000)])
    found, cursor, turn = [], None, 0
    while turn == 0 or cursor is not None:
        r = (a, b)[turn % 2].scan(b"k/", cursor, limit=90).ok()
        found += r.keys
        cursor, turn = r.cursor, turn + 1
    check(store, found, wanted)


def test_order_of_scans_and_sets(store, client):
    """A scan sees what was set before it by the same handle, and not what was deleted."""
    c = client(store.url)
    asked = []
    with c.batched():
        for i in range(100):
            c.ask_set(b"k%d" % i, b"v")
            asked.append(c.ask_scan(b"k%d" % i, limit=10))
            c.ask_delete(b"k%d" % i)
            asked.append(c.ask_scan(b"k%d" % i, limit=10))
    results = results_of(asked)
    if store.is_ordered:  # pages of Redis may be shorter than what there is
        assert all(r.ok().keys == [b"k%d" % i] for i, r in enumerate(results[::2]))
    assert all(r.ok().keys == [] for r in results[1::2])
