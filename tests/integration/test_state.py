# SPDX-License-Identifier: MIT
"""The shared state: what muster/state.h promises, of every store. The client is a program of its own (state_client.c).

$MUSTER_TEST_STORES names the stores that are wanted, $MUSTER_TEST_LONG=1 asks for the large numbers."""

import os
import random
import time

import pytest

from state_program import (KEY_MAX, MESSAGE_MAX, PAGE_MAX, VALUE_MAX, WAITING_MAX, Pattern, Text, results_of, until)

LONG = bool(os.environ.get("MUSTER_TEST_LONG"))
EVERY_BYTE = bytes(range(256))
HOUR = 3600 * 1000000


def errors(results):
    return [r.error for r in results]


def gone(client, key):
    """Asks until the key is not there any more; returns when that was."""
    def look():
        r = client.get(key)
        return r if r.error == "ENOENT" else None

    return until(look, "the end of a key").time


# Values


def test_keys_and_values_are_bytes(store, client):
    """Whatever the bytes are, they come back as they were, under their own key only."""
    c = client(store.url)
    keys = [b"\0", b"\0\0", b"a", b"a\0", b"\0a", b"A", EVERY_BYTE, EVERY_BYTE[::-1], b"\xff" * KEY_MAX, b"\0" * KEY_MAX, b"x" * KEY_MAX,
            b"x" * (KEY_MAX - 1), "Schlüssel".encode(), b"with space\r\n", b"'\"\\%_*?[]$1;--", b"{a}b", b" ", b"\x80", b"\xc3"]
    values = [b"", b"\0", EVERY_BYTE, b"\r\n", b"0", b"$-1\r\n", b"\\x00", b"\xff\xfe", b"text", Pattern(5000, 3), Pattern(70000, 255)]
    wanted = [(key, values[i % len(values)]) for i, key in enumerate(keys)]
    sets = [c.ask_set(key, value) for key, value in wanted]
    gets = [c.ask_get(key) for key in keys]
    assert errors(results_of(sets)) == ["0"] * len(keys)
    for (key, value), r in zip(wanted, results_of(gets)):
        assert (r.ok().value or b"") == value, key
    for value in values:
        c.set(b"key", value).ok()
        assert (c.get(b"key").ok().value or b"") == value


def test_a_key_may_be_a_string(store, client):
    c = client(store.url)
    c.set(Text("some-text"), b"1").ok()
    assert c.value(b"some-text") == b"1"
    assert c.add(Text("some-text"), 1).ok().number == 2
    c.delete(Text("some-text")).ok()
    assert c.get(Text("some-text")).error == "ENOENT"


def test_an_empty_value_is_a_value(store, client):
    c = client(store.url)
    r = c.set(b"key", None).ok()
    assert r.version != 0
    got = c.get(b"key").ok()
    assert not got.value and got.version == r.version
    assert c.set(b"key", b"", absent=True).error == "EEXIST"


def test_the_largest_value(store, client):
    """16 MiB are taken, a byte more is not, and what was there stays."""
    c = client(store.url)
    for seed, size in enumerate((VALUE_MAX, VALUE_MAX - 1, 1, VALUE_MAX)):
        value = Pattern(size, seed) if size > 1 else b"x"
        version = c.set(b"key", value).ok().version
        r = c.get(b"key").ok()
        assert r.value == value and r.version == version
    r = c.set(b"key", Pattern(VALUE_MAX + 1, 9))
    assert r.refused and r.error == "EMSGSIZE"
    assert c.value(b"key") == value


def test_wrong_arguments_are_refused_by_the_call(store, client):
    c = client(store.url)
    too_long = b"k" * (KEY_MAX + 1)
    year = 366 * 24 * HOUR
    c.set(b"key", b"1").ok()
    version = c.get(b"key").version
    cases = [("EINVAL", [c.ask_get(b""), c.ask_get(None), c.ask_get(Text("")), c.ask_set(b"", b"v"), c.ask_set(None, b"v"), c.ask_delete(b""),
                         c.ask_add(b"", 1), c.ask_publish(b"", b"m"), c.subscribe(b""), c.subscribe(b"channel", nobody=True),
                         c.ask_set(b"key", b"v", absent=True, version=version), c.ask_set(b"key", b"v", ttl=101 * year),
                         c.ask_add(b"key", 1, ttl=101 * year), c.ask_scan(b"", limit=PAGE_MAX + 1), c.lease(b"", 1)]),
             ("EMSGSIZE", [c.ask_get(too_long), c.ask_get(Text("k" * 512)), c.ask_set(too_long, b"v"), c.ask_delete(too_long), c.ask_add(too_long, 1),
                           c.ask_scan(too_long), c.ask_publish(too_long, b"m"), c.ask_publish(b"channel", Pattern(MESSAGE_MAX + 1)),
                           c.subscribe(too_long), c.lease(too_long, 1)]),
             ("ERANGE", [c.lease(b"name", 0.0999), c.lease(b"name", 86400.1), c.lease(b"name", 0)])]
    for error, asked in cases:
        for i, r in enumerate(results_of(asked)):
            assert r.refused and r.error == error, (i, r)
    assert c.value(b"key") == b"1"


@pytest.mark.parametrize("cursor", [ b"nonsense", b"\0", b"1234567890123456789012345678901234567890", b"\xff" * KEY_MAX, Pattern(100000, 1)])
def test_a_cursor_that_is_none_is_refused(store, client, cursor):
    """-EINVAL of the call or of the handler; where any bytes may be one, some page comes, and nothing breaks."""
    c = client(store.url)
    c.set(b"a", b"").ok()
    r = c.scan(b"a", cursor)
    assert r.error == "EINVAL" or (r.error == "0" and set(r.keys) <= {b"a"}), r
    assert c.value(b"a") == b""


def test_what_is_not_there(store, client):
    c = client(store.url)
    for r in (c.get(b"key"), c.delete(b"key")):
        assert r.error == "ENOENT" and r.version == 0 and not r.refused
    assert c.delete(b"key", version=77).error == "ESTALE"
    assert c.set(b"key", b"v", version=77).error == "ESTALE"
    assert c.value(b"key") is None


def test_delete(store, client):
    c = client(store.url)
    c.set(b"key", b"v").ok()
    c.set(b"kex", b"v").ok()
    c.delete(b"key").ok()
    assert c.get(b"key").error == c.delete(b"key").error == "ENOENT"
    assert c.value(b"kex") == b"v"


def test_operations_without_a_handler(store, client):
    c = client(store.url)
    for line in ("set 0 0 6b 76", "add 0 0 6e 5", "delete 0 0 64", "get 0 0 6b"):
        c.say(line)
    assert c.value(b"k") == b"v" and c.value(b"n") == b"5"


# Versions and conditions


def test_if_absent(store, client):
    c = client(store.url)
    assert c.set(b"key", b"1", absent=True).ok().version != 0
    r = c.set(b"key", b"2", absent=True)
    assert r.error == "EEXIST" and r.version == 0
    assert c.value(b"key") == b"1"
    c.delete(b"key").ok()
    c.set(b"key", b"3", absent=True).ok()


def test_the_version_is_another_one_when_the_value_is(store, client):
    """Of a set and of the get that follows it is the same one, in every process."""
    c, other = client(store.url), client(store.url)
    values = [b"", b"\0", b"\0\0", b"1", b"2", b"12", b"x" * 1000, b"x" * 999 + b"y", Pattern(300000, 1), Pattern(300000, 2), Pattern(300001, 1)]
    versions = []
    for value in values:
        version = c.set(b"key", value).ok().version
        assert version == c.get(b"key").version == other.get(b"key").version != 0
        versions.append(version)
    assert len(set(versions)) == len(values)


def test_if_version(store, client):
    c = client(store.url)
    first = c.set(b"key", b"1").ok().version
    second = c.set(b"key", b"2", version=first).ok().version
    assert second not in (0, first) and c.get(b"key").ok().version == second
    stale = c.set(b"key", b"3", version=first)
    assert stale.error == "ESTALE" and stale.version == 0
    assert c.delete(b"key", version=first).error == "ESTALE"
    assert c.value(b"key") == b"2"
    c.delete(b"key", version=second).ok()
    assert c.set(b"key", b"4", version=second).error == "ESTALE"
    assert c.get(b"key").error == "ENOENT"


def test_an_add_changes_the_version(store, client):
    c = client(store.url)
    c.add(b"n", 1).ok()
    version = c.get(b"n").ok().version
    c.add(b"n", 1).ok()
    assert c.set(b"n", b"0", version=version).error == "ESTALE"
    c.set(b"n", b"0", version=c.get(b"n").version).ok()


@pytest.mark.parametrize("large", [False, True])
def test_if_version_of_values_of_any_size(store, client, large):
    c = client(store.url)
    a, b = (Pattern(2000000, 1), Pattern(2000000, 2)) if large else (b"a", b"b")
    version = c.set(b"key", a).ok().version
    version = c.set(b"key", b, version=version).ok().version
    assert c.set(b"key", a, version=version ^ 1).error == "ESTALE"
    c.delete(b"key", version=version).ok()


def race(clients, ask):
    """Each client asks ask(client, round) for every round, all at once; the results by round."""
    rounds = 1000
    asked = [[] for _ in clients]
    for c, of_client in zip(clients, asked):
        of_client.extend(ask(c, i) for i in range(rounds))
    results_of(a for of_client in asked for a in of_client)
    return list(zip(*(results_of(of_client) for of_client in asked)))


def test_one_of_two_wins_if_absent(store, client):
    pair = [client(store.url), client(store.url)]
    for i, results in enumerate(race(pair, lambda c, i: c.ask_set(b"key%d" % i, b"%d" % pair.index(c), absent=True))):
        assert sorted(errors(results)) == ["0", "EEXIST"], i
        assert pair[0].value(b"key%d" % i) == b"%d" % errors(results).index("0")


def test_one_of_two_wins_if_version(store, client):
    pair = [client(store.url), client(store.url)]
    versions = [r.ok().version for r in results_of([pair[0].ask_set(b"key%d" % i, b"start") for i in range(1000)])]
    for i, results in enumerate(race(pair, lambda c, i: c.ask_set(b"key%d" % i, b"%d" % pair.index(c), version=versions[i]))):
        assert sorted(errors(results)) == ["0", "ESTALE"], i
        assert pair[0].value(b"key%d" % i) == b"%d" % errors(results).index("0")


def test_one_of_two_wins_delete(store, client):
    pair = [client(store.url), client(store.url)]
    results_of([pair[0].ask_set(b"key%d" % i, b"start") for i in range(1000)])
    for i, results in enumerate(race(pair, lambda c, i: c.ask_delete(b"key%d" % i))):
        assert sorted(errors(results)) == ["0", "ENOENT"], i


# Time


def test_a_key_is_gone_after_its_time_and_not_before(store, client):
    c = client(store.url)
    before = time.monotonic()
    c.set(b"key", b"v", ttl=300000).ok()
    assert gone(c, b"key") - before >= 0.299
    assert c.delete(b"key").error == "ENOENT"


def test_what_is_gone_is_gone_for_every_operation(store, client):
    """Also when nobody has swept it away yet."""
    c = client(store.url)
    names = (b"absent", b"version", b"delete", b"add", b"last")
    versions = {name: r.ok().version for name, r in zip(names, results_of([c.ask_set(name, b"5", ttl=1) for name in names]))}
    gone(c, b"last")
    assert c.scan_all(b"")[0] == []
    c.set(b"absent", b"w", absent=True).ok()
    assert c.set(b"version", b"w", version=versions[b"version"]).error == "ESTALE"
    assert c.delete(b"delete").error == "ENOENT"
    assert c.add(b"add", 1).ok().number == 1
    assert sorted(c.scan_all(b"")[0]) == [b"absent", b"add"]
    assert c.value(b"absent") == b"w"


def test_if_absent_succeeds_when_the_time_is_over(store, client):
    c = client(store.url)
    c.set(b"key", b"1", ttl=200000).ok()
    tries = []

    def try_it():
        tries.append(c.set(b"key", b"2", absent=True, ttl=HOUR).error)
        return tries[-1] == "0"

    until(try_it, "a place for the key")
    assert set(tries[:-1]) <= {"EEXIST"}
    assert c.value(b"key") == b"2"


def test_a_set_without_a_time_ends_the_time_before(store, client):
    """The key that is measured by was set later, with a longer time."""
    c = client(store.url)
    c.set(b"for ever", b"1", ttl=400000).ok()
    c.set(b"longer", b"1", ttl=400000).ok()
    shorter = c.set(b"shorter", b"1", ttl=HOUR).ok()
    c.set(b"for ever", b"2").ok()
    c.set(b"longer", b"2", ttl=HOUR).ok()
    c.set(b"shorter", b"2", ttl=1000).ok()

    def replace():
        c.set(b"version", b"1", ttl=400000).ok()
        return c.set(b"version", b"2", version=c.get(b"version").version).error == "0"

    until(replace, "a set within the time of the one before")
    c.set(b"measure", b"1", ttl=500000).ok()
    gone(c, b"shorter")
    gone(c, b"measure")
    assert c.value(b"for ever") == b"2" and c.value(b"longer") == b"2" and c.value(b"version") == b"2"
    assert shorter.version != 0


def test_a_deleted_key_comes_back_without_its_time(store, client):
    c = client(store.url)
    c.set(b"key", b"1", ttl=200000).ok()
    assert c.delete(b"key").error in ("0", "ENOENT")  # -ENOENT: we stood still meanwhile
    c.set(b"key", b"2").ok()
    c.set(b"measure", b"1", ttl=300000).ok()
    gone(c, b"measure")
    assert c.value(b"key") == b"2"


def test_the_longest_time(store, client):
    c = client(store.url)
    c.set(b"key", b"1", ttl=100 * 365 * 24 * HOUR).ok()
    assert c.value(b"key") == b"1"
    c.add(b"n", 1, ttl=100 * 365 * 24 * HOUR).ok()
    assert c.value(b"n") == b"1"


def test_times_of_many_keys(store, client):
    """Thousands end at about the same time and cost nobody more than themselves; those that stay, stay."""
    n = 2000
    c = client(store.url)
    asked = [c.ask_set(b"%d/%05d" % (i % 2, i), b"v", ttl=100000 if i % 2 else None) for i in range(n)]
    assert set(errors(results_of(asked))) == {"0"}
    until(lambda: c.scan_all(b"1/", limit=PAGE_MAX)[0] == [], "the end of half of the keys")
    assert len(set(c.scan_all(b"", limit=PAGE_MAX)[0])) == n / 2


# Numbers


def test_add(store, client):
    c = client(store.url)
    for difference, number in ((5, 5), (-7, -2), (0, -2), (2, 0), (2**63 - 1, 2**63 - 1), (-(2**63 - 1), 0), (-(2**63), -(2**63)), (2**63 - 1, -1)):
        assert c.add(b"n", difference).ok().number == number
        assert c.value(b"n") == b"%d" % number
    assert c.add(b"zero", 0).ok().number == 0 and c.value(b"zero") == b"0"


def test_add_to_what_was_set(store, client):
    c = client(store.url)
    for text in (b"41", b"-41", b"0", b"9223372036854775806", b"-9223372036854775808"):
        c.set(b"n", text).ok()
        assert c.add(b"n", 1).ok().number == int(text) + 1
        assert c.value(b"n") == b"%d" % (int(text) + 1)


def test_a_sum_that_does_not_fit(store, client):
    """Nothing is done."""
    c = client(store.url)
    for text, difference in ((b"9223372036854775807", 1), (b"1", 2**63 - 1), (b"-9223372036854775808", -1), (b"-1", -(2**63))):
        c.set(b"n", text).ok()
        r = c.add(b"n", difference)
        assert r.error == "ERANGE", (text, difference)
        assert c.value(b"n") == text


@pytest.mark.parametrize("value", [b"text", b"1.5", b"", b"1\0", b"9223372036854775808", b"0x10", b"1 2", b"--1", b"\xff", b"1e3", Pattern(100000, 1)])
def test_what_is_no_number(store, client, value):
    """-EDOM, and it stays as it was. That the value is a number beyond 64 bits may be told by either error."""
    c = client(store.url)
    c.set(b"n", value).ok()
    wanted = ("EDOM", "ERANGE") if value == b"9223372036854775808" else ("EDOM",)
    assert c.add(b"n", 1).error in wanted
    assert c.value(b"n") == value


def test_the_time_of_a_number_counts_from_when_it_is_made(store, client):
    """The time that add is given is that of a key it makes; one that is there keeps its own."""
    c = client(store.url)
    c.add(b"made", 1, ttl=300000).ok()
    assert c.add(b"made", 1, ttl=HOUR).ok().number in (2, 1)  # 1: we stood still meanwhile
    c.set(b"for ever", b"1").ok()
    c.add(b"for ever", 1, ttl=1000).ok()
    c.set(b"long", b"1", ttl=HOUR).ok()
    c.add(b"long", 1, ttl=1000).ok()
    c.add(b"measure", 1, ttl=1000).ok()
    gone(c, b"measure")
    assert c.value(b"for ever") == b"2" and c.value(b"long") == b"2"


def test_a_number_that_was_made_with_a_time_goes(store, client):
    c = client(store.url)
    for key in (b"n%d" % i for i in range(5)):
        before = time.monotonic()
        asked = [c.ask_add(key, 1, ttl=250000)] + [c.ask_add(key, 1) for _ in range(3)]
        numbers = [r.ok().number for r in results_of(asked)]
        if 1 not in numbers[1:]:  # else we stood still meanwhile
            break
    assert numbers == [1, 2, 3, 4]
    assert gone(c, key) - before >= 0.249
    assert c.add(key, 1).ok().number == 1


def test_adds_of_two_processes(store, client):
    """The sum is exact, and every sum that is told is told once."""
    n = 10000 if LONG else 3000
    pair = [client(store.url), client(store.url)]
    asked = [c.ask_add(b"n", 1) for c in pair for _ in range(n)]
    sums = [r.ok().number for r in results_of(asked, 60)]
    assert sorted(sums) == list(range(1, 2 * n + 1))
    assert sums[:n] == sorted(sums[:n]) and sums[n:] == sorted(sums[n:])
    assert pair[0].value(b"n") == b"%d" % (2 * n)


# Order


def test_what_is_asked_of_one_handle_is_done_in_that_order(store, client):
    """Handlers are called in the order of the calls, too, when all are operations on one key."""
    n = 10000 if LONG else 3000
    c = client(store.url)
    asked = []
    with c.batched():
        for i in range(n // 3):
            asked += [c.ask_set(b"key", b"%d" % i), c.ask_get(b"key"), c.ask_add(b"key", 1)]
    results = results_of(asked)
    for i in range(n // 3):
        assert results[3 * i].error == "0"
        assert results[3 * i + 1].ok().value == b"%d" % i
        assert results[3 * i + 2].ok().number == i + 1
    assert [r.index for r in results] == sorted(r.index for r in results)


def test_order_over_all_kinds_of_operations(store, client):
    c = client(store.url)
    rng, model, asked, wanted = random.Random(1), {}, [], []
    with c.batched():
        for i in range(2000):
            key, deed = b"key%d" % rng.randrange(5), rng.randrange(5)
            if deed == 0:
                asked.append(c.ask_set(key, b"%d" % i))
                model[key] = b"%d" % i
                wanted.append(("0", None))
            elif deed == 1:
                asked.append(c.ask_set(key, b"%d" % i, absent=True))
                wanted.append(("EEXIST" if key in model else "0", None))
                model.setdefault(key, b"%d" % i)
            elif deed == 2:
                asked.append(c.ask_delete(key))
                wanted.append(("0" if key in model else "ENOENT", None))
                model.pop(key, None)
            elif deed == 3:
                asked.append(c.ask_add(key, i))
                model[key] = b"%d" % (int(model.get(key, b"0")) + i)
                wanted.append(("0", int(model[key])))
            else:
                asked.append(c.ask_get(key))
                wanted.append(("0", model[key]) if key in model else ("ENOENT", None))
    for i, (r, (error, value)) in enumerate(zip(results_of(asked), wanted)):
        assert r.error == error, (i, r)
        if isinstance(value, bytes):
            assert r.value == value, i
        elif value is not None:
            assert r.number == value, i


def test_an_operation_from_within_a_handler(store, client):
    c = client(store.url)
    with c.batched():
        first = c.ask_set(b"a", b"1")
        second = c.within(first, c.ask_get, b"a")
    assert second.result().ok().value == b"1" and second.result().index > first.result().index


def test_two_handles_of_one_process(store, client):
    """Also on one and the same store, and one is closed without harm to the other."""
    c = client(store.url)
    assert c.open(store.url, handle=1) == "0"
    c.set(b"key", b"1", handle=0).ok()
    assert c.get(b"key", handle=1).ok().value == b"1"
    asked = [c.ask_add(b"n", 1, handle=i % 2) for i in range(1000)]
    assert sorted(r.ok().number for r in results_of(asked)) == list(range(1, 1001))
    c.close_handle(0)
    assert c.get(b"n", handle=1).ok().value == b"1000"
    assert c.open(store.url, handle=0) == "0"
    assert c.get(b"n", handle=0).ok().value == b"1000"


def test_another_process_sees_it(store, client):
    a, b = client(store.url), client(store.url)
    for i in range(50):
        a.set(b"key", b"%d" % i).ok()
        assert b.value(b"key") == b"%d" % i


def test_it_is_there_after_all_have_gone(store, client):
    a = client(store.url)
    a.set(b"key", EVERY_BYTE).ok()
    a.add(b"n", 3).ok()
    a.finish()
    b = client(store.url)
    assert b.value(b"key") == EVERY_BYTE and b.add(b"n", 1).ok().number == 4


# Limits and the end


def test_too_many_operations(store, client):
    """The limit is what is told of, all that was taken is done, and there is room again then."""
    c = client(store.url)
    with c.batched():
        asked = [c.ask_add(b"n", 1) for _ in range(WAITING_MAX + 100)]
    results = results_of(asked, 60)
    assert errors(results) == ["0"] * WAITING_MAX + ["ENOBUFS"] * 100
    assert all(r.refused for r in results[WAITING_MAX:])
    assert c.add(b"n", 1).ok().number == WAITING_MAX + 1


def test_too_many_bytes(store, client):
    c = client(store.url)
    with c.batched():
        asked = [c.ask_set(b"key%d" % i, Pattern(VALUE_MAX, i)) for i in range(6)]
    results = results_of(asked, 60)
    assert errors(results[:3]) == ["0"] * 3 and results[4].error == results[5].error == "ENOBUFS", results
    assert results[3].error in ("0", "ENOBUFS")
    assert c.value(b"key2") == Pattern(VALUE_MAX, 2)
    c.set(b"key5", Pattern(VALUE_MAX, 5)).ok()


def test_close_with_operations_under_way(store, client):
    """Every handler is told -ECANCELED, once, before close returns; what was sent may have been done."""
    c = client(store.url)
    c.value(b"n")
    with c.batched():
        asked = [c.ask_add(b"n", 1) for _ in range(500)]
        c.say("close 0")
    results = results_of(asked)
    assert errors(results) == ["ECANCELED"] * 500
    (closed,) = [t for t in c.told if t.kind == "k"]
    assert closed.index > max(r.index for r in results)
    assert c.open(store.url) == "0"
    assert 0 <= int(c.value(b"n") or b"0") <= 500


def test_close_at_any_moment(store, client):
    """The first answers have come, others have not."""
    c = client(store.url)
    for i in range(20):
        n = len(c.told)
        with c.batched():
            asked = [c.ask_add(b"n", 1) for _ in range(300)]
            asked[i * 10].then("close 0")
        results = results_of(asked)
        assert set(errors(results)) <= {"0", "ECANCELED"}, results
        done = errors(results).count("0")
        assert done >= i * 10 + 1
        c.wait(lambda n=n: any(t.kind == "k" for t in c.told[n:]), "close")
        assert c.open(store.url) == "0"
        assert int(c.value(b"n")) >= done
        c.delete(b"n").ok()


def test_close_within_a_handler(store, client):
    """The rest is cancelled within, and nothing is called afterwards."""
    c = client(store.url)
    c.value(b"n")
    with c.batched():
        asked = [c.ask_add(b"n", 1) for _ in range(100)]
        asked[10].then("close 0")
        asked[60].then("close 0")
    results = results_of(asked)
    assert set(errors(results[:11])) == {"0"} and set(errors(results[11:])) == {"ECANCELED"}
    c.ping()


def test_close_as_soon_as_it_is_open(store, client):
    c = client()
    for _ in range(50):
        c.say(f"open 0 '{store.url}")
        c.ask_get(b"key")
        c.say("close 0")
    c.ping()
    assert [t.words[1] for t in c.told if t.kind == "o"] == ["0"] * 50
    assert [t.error for t in c.told if t.kind == "r"] == ["ECANCELED"] * 50


def test_the_change_handler_is_told_once_that_the_store_is_there(store, client):
    c = client(store.url)
    c.value(b"key")
    c.wait_connected()
    assert [change.error for change in c.changes()] == ["0"]
    assert c.is_connected()


def test_opened_without_options(store, client):
    c = client()
    assert c.open(store.url, plain=True) == "0"
    c.set(b"key", b"1").ok()
    assert c.changes() == []


def test_required(store, client):
    """It is connected when the call returns, and told so."""
    c = client()
    assert c.open(store.url, required=True) == "0"
    assert c.is_connected()
    c.set(b"key", b"1").ok()
    c.wait_connected()


def test_the_url_of_the_environment(store, client):
    c = client(environment={"MUSTER_STATE_URL": store.url, "MUSTER_STATE_REQUIRED": "1"})
    assert c.open(None) == "0"
    assert c.is_connected()
    c.set(b"key", b"1").ok()
    assert client(store.url).value(b"key") == b"1"


def test_idle_means_idle(store, client):
    """A handle that nothing is asked of, with a subscription where there is one, costs no wakeup."""
    c = client(store.url)
    c.set(b"key", b"1").ok()
    if store.can_publish:
        c.subscribe(b"channel").effective()
    c.ping()

    def switches():
        total = 0
        for task in os.listdir(f"/proc/{c.pid}/task"):
            with open(f"/proc/{c.pid}/task/{task}/status", encoding="ascii") as f:
                total += sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
        return total

    def quiet():
        before = switches()
        c.pump(1)  # nothing is to come
        return switches() == before

    assert any(quiet() for _ in range(4))
