# SPDX-License-Identifier: MIT
"""The shared state in files: processes that are killed at any moment, files that are damaged, disks that are full."""

import fcntl
import os
import pathlib
import random
import shutil
import signal
import subprocess

import pytest

from harness import DEADLINE
from state_program import VALUE_MAX, Pattern, results_of, until, wait_for

LONG = bool(os.environ.get("MUSTER_TEST_LONG"))
NOBODY = 65534


def data_file(store):
    """The file that holds it all: the largest."""
    return max((p for p in store.path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def used(path):
    return path.stat().st_blocks * 512


def read(c, key):
    """The value of a key that is there, of a client whose operations have little time."""
    return until(lambda: getattr(c.get(key), "value", None), "a value")


# Where it is


def test_the_directory_of_the_unit(lmdb, client):
    environment = {"STATE_DIRECTORY": str(lmdb.folder)}
    shutil.rmtree(lmdb.path)
    a = client("lmdb:", environment=environment)
    a.set(b"key", b"v").ok()
    assert lmdb.path.is_dir()
    assert client(f"lmdb:{lmdb.folder}/state").value(b"key") == b"v"


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_no_directory_of_the_unit(client, value):
    """It is refused, or told of as what cannot be reached."""
    c = client(environment={"STATE_DIRECTORY": value} if value is not None else {})
    if c.open("lmdb:", timeout=300000) != "EINVAL":
        c.wait(lambda: c.changes() and c.changes()[0].error != "0", "a refusal")


def test_a_directory_that_cannot_be(lmdb, client):
    """It is told and tried again; as soon as it can be it is."""
    c = client(f"lmdb:{lmdb.folder}/later/state", timeout=300000)
    c.wait(lambda: c.changes() and c.changes()[0].error != "0", "a refusal")
    assert c.set(b"key", b"v").error in ("ENOTCONN", "EACCES")
    (lmdb.folder / "later").mkdir()
    c.wait_connected()
    until(lambda: c.set(b"key", b"v").error == "0", "a write")
    d = client()
    assert d.open(f"lmdb:{lmdb.folder}/never/state", required=True, timeout=300000) in ("ENOTCONN", "EACCES", "ENOENT")


def test_a_file_where_the_directory_should_be(lmdb, client):
    path = lmdb.folder / "file"
    path.write_bytes(b"x" * 10000)
    c = client(f"lmdb:{path}", timeout=300000)
    c.wait(lambda: c.changes() and c.changes()[0].error != "0", "a refusal")
    assert path.read_bytes() == b"x" * 10000


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("what", ["directory", "file", "read only"])
def test_no_permission(lmdb, client, what):
    """-EACCES; and it is well again as soon as there is permission."""
    lmdb.folder.chmod(0o755)
    root = client(lmdb.url)
    root.set(b"key", b"v").ok()
    root.finish()
    lmdb.path.chmod(0o700 if what == "directory" else 0o777)
    if what == "read only":
        for path in lmdb.path.iterdir():
            path.chmod(0o444)
    try:
        c = client(lmdb.url, uid=NOBODY, timeout=300000)
    except PermissionError:
        pytest.skip("the build is in a folder of somebody's own")
    c.wait_change("EACCES")
    assert c.set(b"key", b"w").error in ("EACCES", "ENOTCONN")
    for path in (lmdb.path, *lmdb.path.iterdir()):
        path.chmod(0o777)
    c.wait_connected()
    assert read(c, b"key") == b"v"
    until(lambda: c.set(b"key", b"w").error == "0", "a write")


def test_nobody_else_may_read_it(lmdb, client):
    """Files, and a directory that is made, are the owner's alone."""
    c = client(f"lmdb:{lmdb.folder}/made")
    c.set(b"key", b"v").ok()
    made = lmdb.folder / "made"
    for path in (made, *made.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path


# Processes that are killed


def test_killed_while_it_writes(lmdb, client):
    """200 times one of two is killed in the middle of writing. The other one is never held up, and what was acknowledged is there."""
    other = client(lmdb.url)
    rng = random.Random(5)
    acknowledged = 0
    for i in range(1000 if LONG else 200):
        victim = client(lmdb.url)
        adds = [victim.ask_add(b"n", 1) for _ in range(400)]
        sets = [victim.ask_set(b"big%d" % (k % 7), Pattern(20000 + k, k % 256)) for k in range(60)]
        own = [other.ask_add(b"other", 1), other.ask_get(b"n")]
        number = rng.randrange(450)
        wait_for([victim, other], lambda: number == 0 or (adds + sets)[number].told, "some answers")
        victim.kill()
        victim.process.wait()
        own += [other.ask_add(b"other", 1), other.ask_set(b"some", b"v")]
        for r in results_of(own):
            assert r.error in ("0", "ENOENT"), (i, r)
        wait_for([victim], lambda: victim.ended, "the end of what it said")
        acknowledged += sum(1 for a in adds if a.told)
        value = int(other.value(b"n") or 0)
        assert value >= acknowledged, i
        acknowledged = value
        victim.close()
    assert int(other.value(b"other")) == 2 * (1000 if LONG else 200)
    for k in range(7):
        r = other.get(b"big%d" % k)
        assert r.error == "ENOENT" or isinstance(r.value, Pattern)


def test_versions_of_what_was_killed(lmdb, client):
    """A chain of sets, each on the condition of the one before, is never broken by a kill."""
    c = client(lmdb.url)
    rng = random.Random(6)
    version, number = c.set(b"chain", b"0").ok().version, 0
    for _ in range(30):
        victim = client(lmdb.url)
        r = victim.get(b"chain").ok()
        assert (r.version, int(r.value)) == (version, number)
        asked = [victim.ask_set(b"chain", b"%d" % (number + 1), version=version)]
        asked += [victim.ask_set(b"chain", b"%d" % (number + 2), version=version), victim.ask_add(b"chain", 1)]
        victim.pump()
        if rng.randrange(2):
            asked[rng.randrange(3)].result()
        victim.kill()
        victim.process.wait()
        r = c.get(b"chain").ok()
        assert int(r.value) in (number, number + 1, number + 2)
        assert (r.version == version) == (int(r.value) == number)
        version, number = r.version, int(r.value)
        victim.close()


def test_adds_with_kills_in_between(lmdb, client):
    """The sum is exact: those that were told of are there, of the others each at most once."""
    n = 500000 if LONG else 20000
    steady = client(lmdb.url)
    asked, told, unknown = [], 0, 0
    while len(asked) < n:
        victim = client(lmdb.url)
        asked += [steady.ask_add(b"n", 1) for _ in range(5000)]
        its = [victim.ask_add(b"n", 1) for _ in range(5000)]
        wait_for([victim, steady], lambda: its[2000].told, "some answers", 60)  # pylint: disable=cell-var-from-loop
        victim.kill()
        victim.process.wait()
        wait_for([victim], lambda: victim.ended, "the end of what it said")  # pylint: disable=cell-var-from-loop
        its_told = sum(1 for a in its if a.told)
        told, unknown = told + its_told, unknown + 5000 - its_told
        assert {r.error for r in results_of(asked[-5000:], 60)} == {"0"}
        victim.close()
    value = int(steady.value(b"n"))
    assert len(asked) + told <= value <= len(asked) + told + unknown
    sums = [a.told[0].number for a in asked]
    assert sums == sorted(set(sums))


def test_one_that_stands_still_while_it_writes(lmdb, client):
    """It may have the lock: others still read at once (by a handle that no write waits on), their loops go on, and a write says
    -ETIMEDOUT at the worst. When the other one goes on all does."""
    c = client(lmdb.url, timeout=400000)
    c.wait_connected()
    c.open(lmdb.url, handle=1)
    c.set(b"key", b"v", handle=1).ok()
    victim = client(lmdb.url)
    locked = 0
    for _ in range(15):
        asked = [victim.ask_set(b"big%d" % k, Pattern(2000000, k)) for k in range(10)]
        wait_for([victim], lambda: asked[2].told, "some answers")  # pylint: disable=cell-var-from-loop
        victim.stop()
        began = c.ping().time
        write = c.ask_add(b"n", 1)
        assert c.get(b"key", handle=1).ok().value == b"v"
        r = write.result()
        assert r.error in ("0", "ETIMEDOUT")
        if r.error != "0":
            locked += 1
            assert r.time - began >= 0.399
            c.ping()
            newcomer = client(lmdb.url, timeout=400000)
            asked_too = newcomer.ask_get(b"key")
            newcomer.ping()
            assert asked_too.result().error in ("0", "ENOTCONN")
        victim.resume()
        results_of(asked)
        until(lambda: c.add(b"m", 1).error == "0", "a write")
        if locked >= 2:
            break
    assert int(read(c, b"m")) >= 1


def test_one_that_stands_still_while_it_opens(lmdb, client):
    """It has the lock file for itself then. Others wait for that without their loops standing still, and not for longer than the
    time-out."""
    c = client(lmdb.url)
    c.set(b"key", b"v").ok()
    c.finish()
    with open(data_file(lmdb).with_name("lock.mdb"), "r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX, 1)  # as mdb_env_open() does
        d = client(lmdb.url, timeout=400000)
        asked = d.ask_get(b"key")
        d.ping()
        assert asked.result().error in ("ENOTCONN", "ETIMEDOUT")
        assert client().open(lmdb.url, required=True, timeout=400000) in ("ENOTCONN", "ETIMEDOUT")
    assert read(d, b"key") == b"v"


def test_readers_that_were_killed(lmdb, client):
    """Their places are given free, and old pages are used again: the file stays small."""
    c = client(lmdb.url)
    for i in range(60):
        victim = client(lmdb.url)
        for k in range(5):
            victim.ask_set(b"big%d" % k, Pattern(100000, i))
            victim.ask_get(b"big%d" % k)
            victim.ask_scan(b"")
        if i % 2:
            victim.pump()
        else:
            victim.value(b"big0")
        victim.kill()
        victim.process.wait()
        c.set(b"big9", Pattern(100000, i)).ok()
        victim.close()
    assert used(data_file(lmdb)) < 20 * 1024 * 1024
    if shutil.which("mdb_stat"):
        lines = subprocess.run(["mdb_stat", "-rr", lmdb.path], capture_output=True, text=True, check=False).stdout.splitlines()
        assert "Reader Table Status" in lines
        readers = {int(line.split()[0]) for line in lines if len(line.split()) == 3 and line.split()[0].isdigit()}  # pid, thread, txnid
        # who opens the store finds the places of those that died before; the latest may be left
        assert len(readers - {c.pid}) <= 2, lines


@pytest.mark.parametrize("verb", ["get", "scan"])
def test_killed_with_an_open_transaction(lmdb, client, verb):
    """Within a handler that has a value before it: the pages that it saw are used again, by who was there before and by who comes."""
    c = client(lmdb.url)
    sizes = []
    for i in range(8):
        results_of([c.ask_set(b"big%d" % k, Pattern(100000, i)) for k in range(10)])
        victim = client(lmdb.url)
        with victim.batched():
            asked = victim.ask_get(b"big0") if verb == "get" else victim.ask_scan(b"")
            asked.then("die")
        wait_for([victim], lambda: victim.ended, "its end")  # pylint: disable=cell-var-from-loop
        assert victim.process.wait(DEADLINE) == -signal.SIGKILL
        victim.close()
        results_of([c.ask_set(b"big%d" % k, Pattern(100000, i + k)) for k in range(10) for _ in range(5)])
        sizes.append(used(data_file(lmdb)))
    assert sizes[-1] <= 1.5 * sizes[2], sizes


def test_killed_with_an_open_transaction_and_nobody_comes(lmdb, client):
    """Who was there before cleans up as well: the file does not grow until somebody opens it anew."""
    c, victim = client(lmdb.url), client(lmdb.url)
    results_of([c.ask_set(b"big%d" % k, Pattern(100000, 1)) for k in range(10)])
    with victim.batched():
        victim.ask_get(b"big0").then("die")
    wait_for([victim], lambda: victim.ended, "its end")
    victim.process.wait(DEADLINE)
    for _ in range(60):
        results_of([c.ask_set(b"big%d" % k, Pattern(100000, 2)) for k in range(10)])
    assert used(data_file(lmdb)) < 30 * 1024 * 1024


def test_all_were_killed(lmdb, client):
    """At once, in the middle of it: whoever comes next finds it well."""
    for _ in range(5):
        clients = [client(lmdb.url) for _ in range(3)]
        asked = [[c.ask_add(b"n", 1) for _ in range(500)] for c in clients]
        wait_for(clients, lambda: asked[0][250].told, "some answers")  # pylint: disable=cell-var-from-loop
        for c in clients:
            c.kill()
        for c in clients:
            c.process.wait()
            wait_for([c], lambda: c.ended, "the end of what it said")  # pylint: disable=cell-var-from-loop
        told = sum(1 for its in asked for a in its if a.told)
        c = client(lmdb.url)
        value = int(c.value(b"n"))
        assert told <= value <= 1500
        c.delete(b"n").ok()
        c.kill(signal.SIGKILL)
        c.process.wait()


# Its size


def test_the_file_does_not_grow_without_bound(lmdb, client):
    """What is replaced, deleted or gone makes room for what comes."""
    c = client(lmdb.url)
    sizes = []
    for i in range(6):
        asked = [c.ask_set(b"key%d" % k, Pattern(10000 + 10 * k, i)) for k in range(200)]
        asked += [c.ask_set(b"brief%d/%d" % (i, k), b"v" * 500, ttl=1000) for k in range(500)]
        asked += [c.ask_set(b"%d/%d" % (i, k), b"v" * 500) for k in range(500)]
        asked += [c.ask_delete(b"%d/%d" % (i, k)) for k in range(500)]
        assert {r.error for r in results_of(asked)} == {"0"}
        until(lambda: not c.scan(b"brief").ok().keys, "the end of the brief ones")
        sizes.append(used(data_file(lmdb)))
    assert sizes[-1] <= 2 * sizes[1] and sizes[-1] < 40 * 1024 * 1024, sizes


def test_it_grows_for_all(lmdb, client):
    """Beyond any size that it began with, for processes that have had it open before; nobody has to stop."""
    a, b = client(lmdb.url), client(lmdb.url)
    b.set(b"key", b"v").ok()
    n = 20 if LONG else 8
    for i in range(n):
        a.set(b"big%d" % i, Pattern(VALUE_MAX, i)).ok()
        assert b.get(b"big%d" % i).ok().value == Pattern(VALUE_MAX, i)
    for i in range(n):
        b.delete(b"big%d" % i).ok()
        assert a.get(b"big%d" % i).error == "ENOENT"


def test_memory_stays(lmdb, client):
    """It does not grow with what is written; the map of the file is no memory of its own."""
    c = client(lmdb.url)

    def private():
        text = pathlib.Path(f"/proc/{c.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Dirty:", "Swap:")))

    kept = []
    for i in range(12):
        c.set(b"key", Pattern(VALUE_MAX, i)).ok()
        c.get(b"key").ok()
        kept.append(private())
    assert kept[-1] - kept[6] < 20000, kept


@pytest.fixture
def small_disk(lmdb):
    """Words before a command that run it where the store is on a disk of 2 MiB, for which one has to be root."""
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can mount a disk")
    script = f"mount -t tmpfs -o size=2m,mode=700 tmpfs {lmdb.path} && exec \"$@\""
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    return words


def test_a_full_disk(lmdb, client, small_disk):
    """-ENOSPC, and nothing of it was done; what reads goes on, and so does all when there is room."""
    c = client(lmdb.url, prefix=small_disk)
    c.set(b"key", b"v").ok()
    c.add(b"n", 1).ok()
    disk = pathlib.Path(f"/proc/{c.pid}/root{lmdb.path}")
    assert list(disk.iterdir())
    written = 0
    while (r := c.set(b"big%d" % written, Pattern(100000, written))).error == "0":
        written += 1
        assert written < 100
    assert r.error == "ENOSPC" and written > 3
    assert c.get(b"big%d" % written).error == "ENOENT"
    for i in range(written):
        assert c.get(b"big%d" % i).ok().value == Pattern(100000, i)
    r = c.set(b"key", Pattern(300000, 1))
    assert r.error == "ENOSPC" and c.value(b"key") == b"v"
    for _ in range(50):
        assert c.set(b"more", Pattern(200000, 1)).error == "ENOSPC"
    assert c.is_connected()
    subprocess.run(["nsenter", "--mount", "--target", str(c.pid), "mount", "-o", "remount,size=8m", str(lmdb.path)], check=True)
    c.set(b"more", Pattern(200000, 1)).ok()
    c.set(b"key", b"w").ok()
    assert c.value(b"key") == b"w" and c.add(b"n", 1).ok().number == 2
    for i in range(written):
        assert c.get(b"big%d" % i).ok().value == Pattern(100000, i)


def test_a_disk_that_is_full_from_the_start(lmdb, client, small_disk):
    """It is told; and when there is room it is there."""
    fill = [*small_disk, "sh", "-c", f"head -c 10m /dev/zero >{lmdb.path}/filler 2>/dev/null; exec \"$@\"", "sh"]
    c = client(lmdb.url, prefix=fill, timeout=300000)
    c.wait(lambda: c.changes() or c.told, "something")
    r = c.set(b"key", b"v")
    assert r.error in ("ENOSPC", "ENOTCONN"), r
    subprocess.run(["nsenter", "--mount", "--target", str(c.pid), "rm", f"{lmdb.path}/filler"], check=True)
    until(lambda: c.set(b"key", b"v").error == "0", "room")
    assert read(c, b"key") == b"v"


# Files that are damaged


def filled(lmdb, client):
    c = client(lmdb.url)
    asked = [c.ask_set(b"key%04d" % i, b"v" * 200) for i in range(2000)] + [c.ask_set(b"big%d" % i, Pattern(50000, i)) for i in range(10)]
    asked += [c.ask_set(b"brief%d" % i, b"v", ttl=3600000000) for i in range(100)]
    assert {r.error for r in results_of(asked)} == {"0"}
    c.lease(b"name", 60).wait_held()
    c.finish()
    return data_file(lmdb)


def use(c):
    """All that there is to do. The errors that were told."""
    asked = [c.ask_get(b"key%04d" % i) for i in range(0, 2000, 3)] + [c.ask_get(b"big%d" % i) for i in range(10)]
    asked += [c.ask_scan(b"", limit=1000), c.ask_set(b"new", b"v"), c.ask_add(b"n", 1), c.ask_delete(b"key0001"), c.ask_set(b"key0002", Pattern(100000))]
    return {r.error for r in results_of(asked)}


ALLOWED = {"0", "ENOENT", "EBADMSG", "ENOTCONN", "EIO", "ETIMEDOUT"}


@pytest.mark.parametrize("text", [b"", b"x", b"nonsense" * 1000, b"\0" * 4096, b"\0" * 100000, b"\xff" * 100000], ids=["empty", "x", "text", "zeros", "many zeros", "ones"])
def test_a_file_that_is_something_else(lmdb, client, text):
    """-EBADMSG, told at once, and nothing of the file is overwritten; one that is empty is a new one."""
    path = filled(lmdb, client)
    path.write_bytes(text)
    c = client(lmdb.url, timeout=300000)
    if text == b"":
        until(lambda: c.set(b"key", b"v").error == "0", "a new one")
        return
    c.wait_change("EBADMSG")
    assert use(c) <= {"EBADMSG", "ENOTCONN"}
    assert path.read_bytes() == text
    d = client()
    assert d.open(lmdb.url, required=True) == "EBADMSG"


@pytest.mark.parametrize("part", ["1", "4095", "4096", "8191", "8192", "12288", "1/4", "1/2", "3/4", "-4096", "-1"])
def test_a_file_that_was_cut(lmdb, client, part):
    """It never crashes. What is there still may be told; what is not is -EBADMSG."""
    path = filled(lmdb, client)
    size = path.stat().st_size
    length = size * int(part[0]) // int(part[2]) if "/" in part else size + int(part) if part[0] == "-" else int(part)
    os.truncate(path, length)
    c = client(lmdb.url, timeout=300000)
    c.wait(c.changes, "a change")
    found = use(c)
    assert found <= ALLOWED, found
    if "/" in part or not part.startswith("-"):
        assert "EBADMSG" in found | {change.error for change in c.changes()}
    c.finish()


def test_a_file_that_is_damaged_somewhere(lmdb, client):
    """Pages of rubbish, anywhere: errors, maybe wrong data. LMDB does not recognise all of it; then a process may die, but none hangs."""
    path = filled(lmdb, client)
    good = path.read_bytes()
    rng = random.Random(7)
    n_deaths = 0
    for i in range(60 if LONG else 25):
        bad = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(2, len(good) // 4096) * 4096
            bad[at : at + 4096] = (rng.randbytes(4096), b"\0" * 4096, b"\xff" * 4096, good[4096 * 3 : 4096 * 4])[i % 4]
        path.write_bytes(bad)
        c = client(lmdb.url, timeout=300000)
        try:
            c.wait(c.changes, "a change")
            found = use(c)
            c.finish()
        except AssertionError as e:
            assert "ended before" in str(e) or "it ended with" in str(e)
            assert c.process.wait() in (-signal.SIGSEGV, -signal.SIGBUS)
            n_deaths += 1
        else:
            assert found <= ALLOWED, (i, found)
        c.close()
    assert n_deaths < 10


@pytest.mark.parametrize("name", ["lock", "data"])
def test_a_file_is_taken_away_meanwhile(lmdb, client, name):
    """Who has it open goes on with what it has; nobody dies."""
    c = client(lmdb.url)
    c.set(b"key", b"v").ok()
    data = data_file(lmdb)
    for path in lmdb.path.iterdir():
        if path.is_file() and (path == data) == (name == "data"):
            path.unlink()
    assert c.set(b"key", b"w").error in ("0", "EIO", "EBADMSG", "ENOTCONN")
    c.get(b"key")
    d = client(lmdb.url)
    assert d.get(b"key").error in ("0", "ENOENT", "ENOTCONN", "EIO")


def test_rubbish_in_the_lock_file(lmdb, client):
    path = filled(lmdb, client)
    lock = next(p for p in path.parent.iterdir() if p != path)
    lock.write_bytes(b"\xff" * lock.stat().st_size)
    c = client(lmdb.url, timeout=300000)
    c.wait(c.changes, "a change")
    assert use(c) <= ALLOWED
    c.finish()
