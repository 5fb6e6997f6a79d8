# SPDX-License-Identifier: MIT
"""The shared state when something is wrong: every operation ends once, with an error that tells what is known of it."""

import contextlib
import os
import pathlib
import random
import tempfile
import time

import pytest

from state_program import Pattern, results_of, until
from state_stores import Lmdb, Proxy, Redis

NOTHING_DONE = {"ENOTCONN"}
UNKNOWN = {"ECONNABORTED", "ETIMEDOUT"}


def errors(results):
    return [r.error for r in results]


# The URL


MALFORMED = ["", ":", "redis", "//host", "redis:", "redis:host", "redis://host:port", "redis://host:0", "redis://host:65536", "redis://host:-1",
             "redis://ho st", "redis://[::1", "redis://::1]", "redis://host/db", "redis://host/-1", "redis://host/1/2", "redis://host/99999999999999999999",
             "redis://host/%zz", "redis://us%er@host", "redis://host?nonsense=1", "redis://host/0?db=x", "redis://host/0#fragment",
             "redis+unix://", "redis+unix://host/run/s", "redis+unix:///run/s?db=x", "redis+unix:///run/s?db=-1", "redis+unix:///run/s?nonsense",
             "redis+unix:///" + "x" * 108, "lmdb:relative/path", "lmdb:/x?nonsense=1", "lmdb://host/path", "lmdb:/%00", "lmdb:/a%00b",
             "postgresql:", "postgresql://host:port/name", "postgresql://host/a%00b", "postgresql://ho st/name", "postgresql://host/name?nonsense=1",
             "postgresql://host:99999/name", "postgresql://[::1/name", "redis://host/0\n", "redis://\x7fhost", "redis://host\\0"]


@pytest.mark.parametrize("url", MALFORMED)
def test_malformed_urls(client, url):
    """They are refused by the call, and the output is left alone."""
    assert client().open(url.encode() if url else b"") == "EINVAL"


@pytest.mark.parametrize("url", ["mysql://host/name", "rediss+unix:///run/s", "REDISX://host", "http://host/", "lmdbx:/path", "file:///x", "redis+tcp://host", "r\u00e9dis://host"])
def test_urls_of_another_kind(client, url):
    assert client().open(url) in ("EPROTONOSUPPORT", "EINVAL")


def test_a_kind_that_is_not_known(client):
    assert client().open("mysql://host/name") == "EINVAL"


def test_no_url(client):
    assert client().open(None) == "ENXIO"
    assert client(environment={"MUSTER_STATE_URL": ""}).open(None) in ("ENXIO", "EINVAL")
    assert client(environment={"MUSTER_STATE_URL": "redis://["}).open(None) == "EINVAL"


@pytest.mark.parametrize("url", ["lmdb:/nowhere", "redis://localhost:1", "redis+unix:///nowhere", "postgresql://localhost:1/name"])
def test_a_plugin_that_is_not_installed(client, url, tmp_path):
    c = client(environment={"MUSTER_PLUGINDIR": str(tmp_path)})
    assert c.open(url) == "ELIBACC"
    assert c.open(url, required=True) == "ELIBACC"


@pytest.mark.parametrize("text", [b"", b"no library at all", b"\x7fELF", b"\x7fELF\x02\x01\x01" + b"\0" * 100])
def test_a_plugin_that_is_broken(client, tmp_path, text):
    (tmp_path / "state-redis.so").write_bytes(text)
    assert client(environment={"MUSTER_PLUGINDIR": str(tmp_path)}).open("redis://localhost:1") == "ELIBACC"


def test_a_plugin_that_is_something_else(client, tmp_path):
    """A library, but no driver."""
    library = next((p for p in ("/usr/lib/x86_64-linux-gnu/libsystemd.so.0", "/usr/lib64/libsystemd.so.0") if os.path.exists(p)), None)
    if not library:
        pytest.skip("no library to take for one")
    (tmp_path / "state-redis.so").symlink_to(library)
    assert client(environment={"MUSTER_PLUGINDIR": str(tmp_path)}).open("redis://localhost:1") == "ELIBACC"


# A server that is not there


def stopped(server):
    server.kill()
    return server


def test_not_there_at_the_start(server, client):
    """It is told; operations wait and are given up, and nothing was done; when the server comes all works without more ado."""
    stopped(server)
    c = client(server.url, timeout=400000)
    c.wait_change("ENOTCONN")
    assert not c.is_connected()
    with c.batched():
        asked = [c.ask_add(b"n", 1), c.ask_get(b"n"), c.ask_set(b"key", b"v"), c.ask_delete(b"n"), c.ask_scan(b""), c.ask_publish(b"c", b"m")]
    assert set(errors(results_of(asked))) == {"ENOTCONN"}
    server.start()
    c.wait_connected()
    until(lambda: c.set(b"another", b"v").error == "0", "a write")
    witness = client(server.url)
    assert witness.get(b"n").error == witness.get(b"key").error == "ENOENT"


def test_what_waits_is_done_when_the_server_comes(server, client):
    stopped(server)
    c = client(server.url, timeout=60000000)
    c.wait_change("ENOTCONN")
    asked = [c.ask_add(b"n", 1) for _ in range(100)]
    c.ping()
    assert not any(a.told for a in asked)
    server.start()
    assert [r.ok().number for r in results_of(asked)] == list(range(1, 101))


def test_the_time_of_what_waits(server, client):
    """They end in their order and not before their time."""
    stopped(server)
    c = client(server.url, timeout=300000)
    began = c.ping().time
    first = [c.ask_add(b"n", 1) for _ in range(50)]
    results = results_of(first)
    assert set(errors(results)) == {"ENOTCONN"} and min(r.time for r in results) >= began + 0.299
    assert [r.index for r in results] == sorted(r.index for r in results)


def test_required_and_not_there(server, client):
    stopped(server)
    c = client()
    assert c.open(server.url, required=True, timeout=300000) == "ENOTCONN"
    assert client(environment={"MUSTER_STATE_URL": server.url, "MUSTER_STATE_REQUIRED": "1"}).open(None, timeout=300000) == "ENOTCONN"
    server.start()
    assert c.open(server.url, required=True) == "0"


def test_required_and_there_in_time(server, client):
    """The call waits, and the server comes meanwhile."""
    stopped(server)
    c = client()
    c.open(server.url, required=True, timeout=20000000, wait=False)
    while c.unsent:
        c.pump(1)
    server.start()
    c.wait(lambda: any(t.kind == "o" for t in c.told), "open")
    assert [t.words[1] for t in c.told if t.kind == "o"] == ["0"]
    c.set(b"key", b"v").ok()


def test_lost_and_found(server, client):
    """Many times over. A loss may be told of again, as every attempt may have another reason."""
    c = client(server.url)
    for i in range(4):
        assert c.add(b"n", 1).ok().number == i + 1
        n = len(c.changes())
        (server.kill if i % 2 else server.stop)()
        c.wait(lambda n=n: len(c.changes()) > n, "the loss")
        assert not c.is_connected()
        server.start()
        c.wait_connected(n)
    told = c.changes()
    assert told[0].error == "0" and [change.error for change in told].count("0") == 5
    assert all(a.error != "0" or b.error != "0" for a, b in zip(told, told[1:])), told


def value_of(c, key):
    """The value of a number as soon as there is an answer at all."""
    r = c.get(key)
    assert r.error in ("0", "ENOENT", "ENOTCONN", "ETIMEDOUT", "ECONNABORTED")
    return {"0": getattr(r, "value", None), "ENOENT": b"0"}.get(r.error)


def account(results):
    """(done, unknown) of adds; anything else is none of the errors that may be."""
    found = errors(results)
    assert set(found) <= {"0"} | NOTHING_DONE | UNKNOWN, sorted(set(found))
    return found.count("0"), sum(found.count(error) for error in UNKNOWN)


@pytest.mark.parametrize("number", [0, 1, 100, 700])
def test_killed_in_the_middle(server, client, number):
    """Each handler is called once. The counter is what was acknowledged, and at most what nobody knows more."""
    n = 1500
    c = client(server.url, timeout=1500000)
    c.wait_connected()
    asked, sets = [], []
    for i in range(n):
        asked.append(c.ask_add(b"n", 1))
        sets.append(c.ask_set(b"key%d" % i, b"%d" % i))
    while c.unsent:
        c.pump(1)
    if number:
        c.wait(lambda: asked[number].told, "some answers")
    server.kill()
    results, set_results = results_of(asked), results_of(sets)
    server.start()
    done, unknown = account(results)
    account(set_results)
    value = until(lambda: value_of(c, b"n"), "an answer")
    assert done >= number or {"ETIMEDOUT", "ENOTCONN"} & set(errors(results)[: number + 1]), "what was answered before is not known"
    assert done <= int(value) <= done + unknown, (done, value, unknown)
    witness = client(server.url)
    there = {r.error for r in results_of([witness.ask_get(b"key%d" % i) for i, r in enumerate(set_results) if r.error == "0"])}
    assert there <= {"0"}
    not_there = {r.error for r in results_of([witness.ask_get(b"key%d" % i) for i, r in enumerate(set_results) if r.error == "ENOTCONN"])}
    assert not_there <= {"ENOENT"}
    assert all(len(a.told) == 1 for a in asked + sets)


@pytest.fixture
def proxied(server):
    """A proxy before a server, and the URL by way of it."""
    with tempfile.TemporaryDirectory(prefix="muster-proxy-") as folder:
        path, url = server.url_of_proxy(pathlib.Path(folder))
        with contextlib.closing(Proxy(path, server.socket)) as proxy:
            yield proxy, url


def test_done_but_never_answered(server, proxied, client):
    """The connection breaks when all is done and nothing of it was answered: nobody knows (-ECONNABORTED), and nothing is done again.
    What only reads may be asked again."""
    proxy, url = proxied
    c, witness = client(url), client(server.url)
    c.add(b"n", 1).ok()
    c.set(b"set", b"1").ok()
    c.set(b"deleted", b"1").ok()
    proxy.withhold()
    with c.batched():
        asked = [c.ask_add(b"n", 1) for _ in range(50)]
        asked += [c.ask_set(b"absent", b"1", absent=True), c.ask_delete(b"deleted"), c.ask_set(b"set", b"2")]
        read = c.ask_get(b"set")
    until(lambda: witness.value(b"set") == b"2", "the last of it")
    witness.set(b"set", b"3").ok()
    assert not any(a.told for a in asked)
    proxy.cut()
    assert set(errors(results_of(asked))) == {"ECONNABORTED"}
    r = read.result()
    assert r.error == "ECONNABORTED" or r.ok().value == b"3"
    assert c.add(b"n", 1).ok().number == 52
    assert witness.value(b"set") == b"3" and witness.value(b"n") == b"52"
    assert witness.get(b"deleted").error == "ENOENT"


def test_done_and_not_answered_in_time(server, proxied, client):
    """Likewise when nothing breaks: -ETIMEDOUT, and it is not done again."""
    proxy, url = proxied
    c, witness = client(url, timeout=1500000), client(server.url)
    c.wait_connected()
    witness.add(b"n", 1).ok()
    proxy.withhold()
    with c.batched():
        asked = [c.ask_add(b"n", 1) for _ in range(50)]
    results = results_of(asked)
    assert errors(results)[0] == "ETIMEDOUT" and set(errors(results)) <= UNKNOWN
    until(lambda: witness.value(b"n") == b"51", "the last of it")
    proxy.cut()
    until(lambda: c.get(b"n").error == "0", "an answer")  # what it said again would have gone before
    assert witness.value(b"n") == b"51"


def test_cut_again_and_again(server, proxied, client):
    """At whichever moment: what was told to be done is, and what was told not to be is not. By one client after the other, as each waits
    longer when its connections do not last."""
    proxy, url = proxied
    witness = client(server.url)
    rng, asked = random.Random(8), []
    for _ in range(5):
        c = client(url, timeout=3000000)
        for _ in range(4):
            c.wait(lambda c=c: c.changes() and c.changes()[-1].error == "0", "a connection")
            now = [c.ask_add(b"n", 1) for _ in range(100)]
            asked += now
            c.wait(lambda now=now: now[rng.randrange(5)].told, "some answers")
            if rng.randrange(2):
                proxy.withhold()
                c.ping()
            proxy.cut()
            results_of(now)
        c.close_handle()
    done, unknown = account(results_of(asked))
    assert done <= int(witness.value(b"n")) <= done + unknown
    sums = [r.number for r in results_of(asked) if r.error == "0"]
    assert len(set(sums)) == len(sums)


def test_connections_that_do_not_last(server, proxied, client):
    """Each pause is longer than the one before, though the store is there every time: no flood of connections, or of texts."""
    proxy, url = proxied
    c = client(url)
    c.wait_connected()
    for least in (0.1, 0.2, 0.4, 0.8):
        n, cut = len(c.changes()), time.monotonic()
        proxy.cut()
        assert c.wait_connected(n).time - cut >= least
    assert [change.error != "0" for change in c.changes()] == [False, True] * 4 + [False]


def test_a_lease_that_was_taken_and_never_answered(server, proxied, client):
    """The owner gets it nevertheless, as it is its own already; and nobody else had it."""
    proxy, url = proxied
    c, witness = client(url, timeout=3000000), client(server.url)
    c.value(b"something")
    proxy.withhold()
    lease = c.lease(b"name", 30)
    c.ping()
    c.ask_add(b"n", 1)
    until(lambda: witness.value(b"n") == b"1", "what was asked for later")
    assert lease.turns() == []
    proxy.cut()
    assert lease.wait_held().is_held


def test_a_subscription_that_is_not_answered(server, client):
    """Who only listens is told that the server stands still, and hears what is published when it goes on."""
    c = client(server.url, timeout=1000000)
    c.wait_connected()
    server.pause()
    s = c.subscribe(b"channel")
    c.wait_change("ENOTCONN")
    assert not c.is_connected()
    server.resume()
    s.effective()
    client(server.url).publish(b"channel", b"m").ok()
    s.wait_messages(None, b"m")


def test_killed_again_and_again_beneath_two(server, client):
    """The sum stays within what is known, and every sum told is told once."""
    pair = [client(server.url, timeout=800000) for _ in range(2)]
    asked = []
    for round_number in range(4):
        now = [c.ask_add(b"n", 1) for _ in range(400) for c in pair]
        asked += now
        for c in pair:
            c.pump()
        if round_number % 2 == 0:
            pair[0].wait(lambda now=now: now[100].told, "some answers")
        server.kill()
        for c in pair:
            c.pump()
        server.start()
        results_of(now)
    results = results_of(asked)
    done, unknown = account(results)
    sums = [r.number for r in results if r.error == "0"]
    assert len(set(sums)) == len(sums)
    assert done <= int(until(lambda: value_of(pair[0], b"n"), "an answer")) <= done + unknown


def test_a_server_that_stands_still(server, client):
    """What was sent is not known of (-ETIMEDOUT); a new connection is made when the server goes on."""
    c = client(server.url, timeout=500000)
    c.wait_connected()
    server.pause()
    n = len(c.changes())
    with c.batched():
        asked = [c.ask_add(b"n", 1) for _ in range(20)]
    results = results_of(asked)
    found = errors(results)
    assert found[0] == "ETIMEDOUT" and set(found) <= {"ETIMEDOUT", "ECONNABORTED", "ENOTCONN"}
    c.wait(lambda: any(x.error != "0" for x in c.changes()[n:]), "the loss")
    server.resume()
    c.wait_connected(n)
    assert int(until(lambda: value_of(c, b"n"), "an answer")) <= 20 - found.count("ENOTCONN")
    until(lambda: c.set(b"key", b"v").error == "0", "a write")


def test_required_and_standing_still(server, client):
    """A server that takes the connection and says nothing does not hold the start up for longer than the time-out."""
    server.pause()
    c = client()
    assert c.open(server.url, required=True, timeout=400000) in ("ENOTCONN", "ETIMEDOUT")
    server.resume()


def test_closed_while_the_server_stands_still(server, client):
    """At once: nothing is waited for."""
    c = client(server.url)
    lease = c.lease(b"name", 60)
    lease.wait_held()
    server.pause()
    with c.batched():
        asked = [c.ask_add(b"n", 1) for _ in range(20)]
        c.say("ping before")
        c.say("close 0")
    assert set(errors(results_of(asked))) == {"ECANCELED"}
    closed = c.wait(lambda: next((t for t in c.told if t.kind == "k"), None), "close")
    assert closed.time - next(t for t in c.told if t.words == ["before"]).time < 3
    server.resume()


def test_no_flood_of_attempts(server, client):
    """With growing pauses: a second of absence costs no hundred attempts, and little CPU time."""
    stopped(server)
    c = client(server.url)
    c.wait_change("ENOTCONN")

    def ticks():
        fields = open(f"/proc/{c.pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()  # pylint: disable=consider-using-with
        return int(fields[11]) + int(fields[12])

    before, n, end = ticks(), len(c.changes()), time.monotonic() + 2
    while (rest := end - time.monotonic()) > 0:
        c.pump(rest)
    assert ticks() - before <= 0.2 * os.sysconf("SC_CLK_TCK")
    assert len(c.changes()) - n < 20


def test_waiting_is_bounded_while_the_server_is_away(server, client):
    stopped(server)
    c = client(server.url, timeout=1000000)
    with c.batched():
        asked = [c.ask_get(b"key") for _ in range(10050)]
    found = errors(results_of(asked, 60))
    assert found == ["ENOTCONN"] * 10000 + ["ENOBUFS"] * 50


# Passwords and permissions


SECRET = "s3cret:@/%?#"


class Guarded:
    """A server that wants a password of the user "tester"."""

    def __init__(self, server):
        self.server = server
        if isinstance(server, Redis):
            assert server.command("ACL", "SETUSER", "tester", "on", f">{SECRET}", "~*", "&*", "+@all") == "+OK"
            assert server.command("CONFIG", "SET", "requirepass", "another") == "+OK"
            self.url = f"redis+unix://tester@{server.socket}"
            self.with_password = f"redis+unix://tester:s3cret%3A%40%2F%25%3F%23@{server.socket}"
        else:
            server.sql(f"set password_encryption = 'scram-sha-256'; alter role tester password '{SECRET}'")
            server.stop()
            server.authentication = "scram-sha-256"
            server.start()
            self.url = server.url
            self.with_password = self.url.replace("tester@", "tester:s3cret%3A%40%2F%25%3F%23@")


@pytest.fixture
def guarded(server):
    return Guarded(server)


def check_no_secret(c, *secrets):
    for change in c.changes():
        assert not any(secret in change.text for secret in ("s3cret", *secrets)), change
    assert not any(secret in c.stderr() for secret in ("s3cret", *secrets))


def write_secret(tmp_path, text):
    path = tmp_path / "new"
    path.write_text(text)
    path.rename(tmp_path / "credential")
    return str(tmp_path / "credential")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_password_from_a_file(guarded, client, tmp_path, end):
    c = client(guarded.url, credential=write_secret(tmp_path, SECRET + end), required=True)
    c.set(b"key", b"v").ok()
    check_no_secret(c)


def test_a_password_of_the_url(guarded, client):
    c = client(guarded.with_password)
    c.set(b"key", b"v").ok()
    check_no_secret(c)


def test_a_password_of_the_environment(guarded, client, tmp_path):
    c = client(environment={"MUSTER_STATE_URL": guarded.url, "MUSTER_STATE_CREDENTIAL": write_secret(tmp_path, SECRET)})
    assert c.open(None) == "0"
    c.set(b"key", b"v").ok()
    check_no_secret(c)


def test_a_wrong_password(guarded, client, tmp_path):
    """It is told; nothing is done; as soon as the file is right it connects, without being opened anew."""
    credential = write_secret(tmp_path, "s3cret-wrong")
    c = client(guarded.url, credential=credential, timeout=400000)
    c.wait_change("EACCES")
    r = c.add(b"n", 1)
    assert r.error in ("EACCES", "ENOTCONN")
    write_secret(tmp_path, SECRET)
    c.wait_connected()
    until(lambda: c.set(b"key", b"v").error == "0", "a write")
    assert client(guarded.url, credential=credential).add(b"n", 1).ok().number == 1
    check_no_secret(c)
    assert client().open(guarded.url, credential=write_secret(tmp_path, "s3cret-wrong"), required=True) == "EACCES"


@pytest.mark.parametrize("what", ["none", "empty", "missing", "directory", "large", "nul"])
def test_a_password_that_is_none(guarded, client, tmp_path, what):
    """Nothing that can be wrong with the file breaks more than the connection, and it is well again with a good one."""
    path = str(tmp_path / "credential")
    if what == "empty":
        write_secret(tmp_path, "")
    elif what == "directory":
        os.mkdir(path)
    elif what == "large":
        write_secret(tmp_path, "s3cret" * 200000)
    elif what == "nul":
        write_secret(tmp_path, f"{SECRET}\0more")
    c = client(guarded.url, credential=None if what == "none" else path, timeout=400000)
    c.wait(lambda: c.changes() and c.changes()[0].error != "0", "a refusal")
    assert c.get(b"key").error in ("EACCES", "ENOTCONN")
    check_no_secret(c)
    if what == "none":
        return
    if what == "directory":
        os.rmdir(path)
    write_secret(tmp_path, SECRET)
    c.wait_connected()


def test_a_wrong_password_of_the_url(guarded, client):
    c = client(guarded.with_password.replace("s3cret", "s3cret-wrong"))
    c.wait_change("EACCES")
    check_no_secret(c, "wrong")


@pytest.mark.parametrize("url", ["redis://user:s3cret@host:port", "redis://user:s3cret@host/nonsense", "mysql://user:s3cret@host/name", "redis:user:s3cret@host",
                                 "redis:/user:s3cret@host", "redis//user:s3cret@host", "redis://user:s3cret/with@at@host:x", "redis://user:s3cret@host?nonsense=1",
                                 "postgresql://user:s3cret@host/name?nonsense=1", "postgresql://user@host/name?password=s3cret",
                                 "redis://:/s3cret@host/0", "redis://user:6379/s3cret@host", "postgresql://user:5432/s3cret@host/name",
                                 "redis+unix://user:s3cret@host/path", "redis://host?password=s3cret", "redis://user:s3cret%zz@host"])
def test_a_secret_of_a_malformed_url(client, url):
    c = client()
    assert c.open(url) != "0"
    check_no_secret(c)


def test_a_secret_of_a_server_that_is_not_there(server, client, tmp_path):
    stopped(server)
    url = server.url.replace("://", "://someone:s3cret@") if "@" not in server.url else server.url.replace("@", ":s3cret@")
    c = client(url, credential=write_secret(tmp_path, "s3cret-too"))
    c.wait(lambda: c.changes() and c.changes()[0].error != "0", "a refusal")
    check_no_secret(c)


def test_no_permission_in_redis(redis, client, tmp_path):
    """The operation fails, the connection stays."""
    assert redis.command("ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "&*", "+@all", "-@write") == "+OK"
    c = client(f"redis+unix://reader@{redis.socket}", credential=write_secret(tmp_path, "s3cret"))
    assert c.get(b"key").error == "ENOENT"
    for r in (c.set(b"key", b"v"), c.add(b"n", 1)):
        assert r.error == "EACCES", r
    assert c.get(b"key").error == "ENOENT"
    assert c.is_connected()
    check_no_secret(c)


def test_no_permission_in_postgresql(postgresql, client):
    """The table cannot be made: it is told, not a crash; and it works when it may."""
    postgresql.sql("create role stranger login")
    c = client(postgresql.url_of("stranger"), timeout=500000)
    c.wait_change("EACCES")
    assert c.set(b"key", b"v").error in ("EACCES", "ENOTCONN")
    postgresql.sql("grant all on schema public to stranger", postgresql.database)
    c.wait_connected()
    until(lambda: c.set(b"key", b"v").error == "0", "a write")
    c.finish()
    postgresql.sql("drop owned by stranger; drop role stranger", postgresql.database)


def test_a_database_that_is_not_there(postgresql, client):
    c = client(postgresql.url_of(database="nowhere"), timeout=500000)
    c.wait(lambda: c.changes() and c.changes()[0].error != "0", "a refusal")
    assert c.get(b"key").error in ("ENOTCONN", "EACCES", "EIO")
    postgresql.sql("create database nowhere owner tester")
    c.wait_connected()
    until(lambda: c.set(b"key", b"v").error == "0", "a write")


# What the store says


def test_redis_is_full(redis, client):
    """-ENOSPC, nothing is done, and it goes on when there is room; what reads and deletes works meanwhile."""
    c = client(redis.url)
    c.set(b"key", b"v").ok()
    c.set(b"n", b"1").ok()
    assert redis.command("CONFIG", "SET", "maxmemory", "1") == "+OK"
    for r in results_of([c.ask_set(b"more", Pattern(5000)), c.ask_add(b"n", 1), c.ask_set(b"key", b"w", absent=False)]):
        assert r.error == "ENOSPC"
    assert c.value(b"key") == b"v" and c.value(b"n") == b"1"
    c.delete(b"key").ok()
    assert redis.command("CONFIG", "SET", "maxmemory", "0") == "+OK"
    c.set(b"more", b"v").ok()
    assert c.is_connected()


def test_what_redis_keeps_elsewhere(redis, client):
    """A list is no value."""
    c = client(redis.url)
    assert redis.command("LPUSH", "list", "1").startswith(":")
    found = {c.get(b"list").error, c.add(b"list", 1).error}
    assert found <= {"EDOM", "ENOENT"} and "EDOM" in found or found == {"0"}
    assert c.is_connected()


def test_redis_restarted_without_its_data(redis, client):
    """Also scripts that it had: they are loaded again."""
    c = client(redis.url)
    version = c.set(b"key", b"1").ok().version
    c.set(b"key", b"2", version=version).ok()
    c.add(b"n", 1).ok()
    n = len(c.changes())
    redis.kill()
    redis.start()
    c.wait_connected(n)  # before it knows of the loss what it is told goes the old way
    assert c.add(b"n", 1).ok().number == 1
    assert c.set(b"key", b"2", version=version).error == "ESTALE"
    assert redis.command("SCRIPT", "FLUSH") == "+OK"
    c.set(b"key", b"1", absent=True).ok()
    assert c.add(b"n", 1).ok().number == 2
    assert c.delete(b"key", version=c.get(b"key").version).error == "0"
    assert c.lease(b"name", 10).wait_held().is_held


def test_redis_disconnects_its_clients(redis, client):
    c = client(redis.url)
    for i in range(5):
        assert c.add(b"n", 1).ok().number == i + 1
        n = len(c.changes())
        assert redis.command("CLIENT", "KILL", "TYPE", "normal").startswith(":")
        c.wait_connected(n)


def test_postgresql_ends_its_sessions(postgresql, client):
    c = client(postgresql.url)
    s = c.subscribe(b"channel").effective()
    for i in range(3):
        assert c.add(b"n", 1).ok().number == i + 1
        n = len(c.changes())
        postgresql.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tester'")
        c.wait_connected(n)
    c.publish(b"channel", b"m").ok()
    s.wait(lambda told: told.kind == "s" and told.data == b"m")


def test_a_postgresql_that_takes_nothing_more(postgresql, client):
    """A lock on all that there is: -ETIMEDOUT; when it is gone all goes on."""
    c = client(postgresql.url)
    c.add(b"n", 1).ok()
    tables = postgresql.sql("select quote_ident(schemaname) || '.' || quote_ident(tablename) from pg_tables "
                            "where schemaname not in ('pg_catalog', 'information_schema')", postgresql.database).split()
    assert tables
    d = client(postgresql.url, timeout=500000)
    d.wait_connected()
    with postgresql.session(postgresql.database) as psql:
        psql.command("begin; lock " + ", ".join(tables))
        r = d.add(b"n", 1)
        assert r.error == "ETIMEDOUT"
    until(lambda: d.get(b"n").error == "0", "an answer")
    assert int(c.value(b"n")) in (1, 2)


def test_lmdb_needs_no_server(lmdb, client):
    assert not isinstance(lmdb, Redis) and isinstance(lmdb, Lmdb)
    c = client(lmdb.url)
    c.wait_connected()
    c.stop()
    d = client(lmdb.url)
    d.set(b"key", b"v").ok()
    c.resume()
    assert c.value(b"key") == b"v"
