# SPDX-License-Identifier: MIT
"""What workers say to each other, by every kind of worker: it arrives as it stands, once, where it is for; a worker that does not
read, or says what nobody may, harms only itself; and a native worker may be killed at any moment of it.

Workers are told by "muster send" what to say: ["broadcast", VALUE], ["send", WORKER, VALUE], ["big", N] (a string of that many bytes
as JSON); and write down what else they hear, in one file."""

import contextlib
import itertools
import json
import os
import pathlib
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time

import pytest

from harness import BUILD_DIR, DEADLINE, Process, tcp, unix
from module_harness import MODULES
from node_app import NODE, node_app
from test_node_versions import node, programs  # noqa: F401
from twin import Killer, kill_child, master_slots

HERE = pathlib.Path(__file__).parent
TALK = (BUILD_DIR / "tests/integration/talk_program").resolve()
RAW = [sys.executable, "-IS", HERE / "programs/talk.py"]
LONGEST = 255 * 1024
KINDS = ["program", "libmuster", "module", "node"]


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as path:  # a short one, for sockets
        yield pathlib.Path(path)


def words(command):
    return ", ".join(json.dumps(str(word)) for word in command)


def app_of(kind, heard, apps, node=NODE):
    environment = f'environment = {{ HEARD = "{heard}"; }};'
    if kind == "module":
        return f'kind = "module"; module = "{MODULES}/talk.so"; {environment}'
    if kind == "node":
        return node_app(node, apps / "talk.js", environment={"HEARD": heard})
    command = [TALK] if kind == "libmuster" else RAW
    return f'kind = "program"; command = [ {words(command)} ]; {environment}'


class Talk:
    """An app whose workers talk."""

    def __init__(self, ready, folder, kind, apps, count=3, node=NODE, settings="", watchdog_usec=None):
        self.kind, self.heard = kind, folder / "heard"
        self.heard.touch()
        wait = "wait_ready = true; " if kind in ("program", "libmuster") else ""
        self.m = ready(f'workers: {{ count = {count}; soak = "20ms"; start_timeout = "1min"; {wait}{settings} }};',
                       app=app_of(kind, self.heard, apps, node), sockets=[("http", tcp()), ("control", unix(folder / "control"))], watchdog_usec=watchdog_usec)

    def tell(self, slot, *command):
        """What that worker is to say, or to hear; 0: all are."""
        target = {"worker": slot} if slot else {}
        body = json.dumps({**target, "message": list(command)}).encode()
        with contextlib.closing(self.m.connect("control")) as client:
            answer = client.request("/v1/send", "POST", headers=["Content-Type: application/json", f"Content-Length: {len(body)}"], body=body)
        assert answer.status == 200 and not json.loads(answer.body)["undelivered"], answer.body

    def lines(self):
        """Of what was heard: slot, text. Without those that are not written to their end."""
        found = []
        for line in self.heard.read_bytes().split(b"\n")[:-1]:
            slot, _, text = line.decode().split(" ", 2)
            found.append((int(slot), json.loads(text)))
        return found

    def heard_by(self, slot):
        return [text for s, text in self.lines() if s == slot and not (isinstance(text, dict) and "result" in text)]

    def results(self):
        return [text["result"] for _, text in self.lines() if isinstance(text, dict) and "result" in text]

    def expect(self, heard):
        """Each slot's messages, in order; nothing else came before the last of them."""
        try:
            self.m.wait_until(lambda: {slot: self.heard_by(slot) for slot in heard} == heard, "these messages")
        except AssertionError:
            print({slot: [str(text)[:50] for text in self.heard_by(slot)] for slot in heard}, self.m.stderr())
            raise

    def process(self, slot):
        return next(p for p in self.status()["processes"] if p["slot"] == slot)

    def status(self):
        with contextlib.closing(self.m.connect("control")) as client:
            return json.loads(client.request("/v1/status").body)


@pytest.fixture
def talk(ready, folder, apps):
    return lambda kind, **kwargs: Talk(ready, folder, kind, apps, **kwargs)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


VALUES = [1, "x", None, [], {}, {"a": {"cmd": "NODE_HANDLE"}}, {"cmd": "flush"}, ["ü", "\u2028", "\\", "\n"], {"cmd": "NODE"}, {"cmd": ["MUSTER"]}]


def test_broadcast(talk, kind):
    """To all others, not to who says it; any JSON value, in order."""
    t = talk(kind)
    for value in VALUES:
        t.tell(2, "broadcast", value)
    t.expect({1: VALUES, 2: [], 3: VALUES})
    assert t.process(2)["messages_refused"] == t.process(1)["messages_lost"] == 0


def test_send(talk, kind):
    """To one slot, which may be its own; one that does not exist gets nothing, and the master says so."""
    t = talk(kind)
    t.tell(1, "send", 3, "to 3")
    t.tell(1, "send", 1, "to 1")
    t.tell(1, "send", 4, "to 4")
    t.tell(1, "broadcast", "to all")
    t.expect({1: ["to 1"], 2: ["to all"], 3: ["to 3", "to all"]})
    assert t.process(1)["messages_refused"] == 1
    assert t.m.stderr().count("A message of worker 1 (pid ") == 1
    assert "for others is not passed on: the worker that it is for is not ready, or there is none of that number.\n" in t.m.stderr()


@pytest.mark.parametrize("size", [2, 1000, 70_000, LONGEST])
def test_long(talk, kind, size):
    """As long as the manual says, whole, and behind another one of that length."""
    t = talk(kind, count=2)
    for _ in range(2):
        t.tell(1, "big", size)
    t.expect({1: [], 2: ["x" * (size - 2)] * 2})


@pytest.mark.parametrize("kind", ["libmuster", "module"])
def test_refused_by_the_library(talk, kind):
    """What is no message of the application's is an error of the call, and never reaches the master."""
    t = talk(kind, count=2)
    t.tell(1, "big", LONGEST + 1)
    for value in {"cmd": "MUSTER", "act": "retire"}, {"cmd": "NODE_HANDLE_ACK"}, {"cmd": "NODE_"}:
        t.tell(1, "broadcast", value)
        t.tell(1, "send", 2, value)
    t.tell(1, "send", 0, 1)
    t.tell(1, "broadcast", "last")
    t.expect({1: [], 2: ["last"]})
    t.m.wait_until(lambda: len(t.results()) >= 9, "the results")  # each is written when its message is on its way
    assert t.results() == [-90, *[-22] * 7, 0]  # EMSGSIZE, EINVAL
    assert t.process(1)["messages_refused"] == 0


WRONG = [
    {"cmd": "MUSTER", "act": "broadcast"},
    {"cmd": "MUSTER", "act": "broadcast", "data": {"cmd": "MUSTER", "act": "retire"}},
    {"cmd": "MUSTER", "act": "broadcast", "data": {"cmd": "NODE_HANDLE_ACK"}},
    {"cmd": "MUSTER", "act": "send", "data": 1},
    *({"cmd": "MUSTER", "act": "send", "worker": w, "data": 1} for w in (0, -1, 1.5, "2", None, [2], 4294967296)),
]


@pytest.mark.parametrize("kind", ["program", "node"])
def test_wrong(talk, kind):
    """What makes no sense is counted, told once, and harms nobody."""
    t = talk(kind, count=2)
    for message in WRONG:
        t.tell(1, "raw", message)
    t.tell(1, "broadcast", "last")
    t.expect({1: [], 2: ["last"]})
    assert t.process(1)["messages_refused"] == len(WRONG)
    assert t.m.stderr().count("is not passed on") == 1
    assert t.status()["workers"]["ready"] == 2


@pytest.mark.parametrize("kind", ["program"])
def test_wrong_spelling(talk, kind):
    """Words that are Node's only when the escapes in them are read."""
    t = talk(kind, count=2)
    lines = [
        r'{"cmd":"MUSTER","act":"broadcast","data":{"\u0063md":"NODE_HANDLE_ACK"}}',
        r'{"cmd":"MUSTER","act":"broadcast","data":{"cmd":"\u004eODE_HANDLE_ACK"}}',
        r'{"cmd":"MUSTER","act":"broadcast","data":{"cmd":"x","cm\u0064":"NODE\u005fX"}}',
    ]
    for line in lines:
        t.tell(1, "line", line)
    t.tell(1, "broadcast", "last")
    t.expect({1: [], 2: ["last"]})
    assert t.process(1)["messages_refused"] == len(lines)


def test_publish(talk):
    """The whole message, as it is, to all others; what a store says to its like."""
    t = talk("program", count=3)
    message = {"cmd": "MUSTER", "act": "publish", "c": "x", "data": [1, {"cmd": "NODE_X"}], "worker": 1}
    t.tell(3, "raw", message)
    t.expect({1: [message], 2: [message], 3: []})


def test_publish_by_a_module(talk):
    """By the symbols that libmuster finds in muster-worker."""
    t = talk("module", count=2)
    message = {"cmd": "MUSTER", "act": "publish", "data": "y"}
    t.tell(1, "publish", message)
    t.expect({1: [], 2: [message]})
    t.m.wait_until(t.results, "the result")
    assert t.results() == [0]


def test_publish_is_not_for_node(talk):
    t = talk("node", count=2)
    t.tell(1, "raw", {"cmd": "MUSTER", "act": "publish", "data": "y"})
    t.tell(1, "broadcast", "last")
    t.expect({1: [], 2: ["last"]})


def test_static(ready, folder):
    """One that serves files gets what is sent to all, and goes on."""
    m = ready(workers=2, sockets=[("http", tcp()), ("control", unix(folder / "control"))])
    for text in '"x"', json.dumps("x" * 200_000):
        body = f'{{"message":{text}}}'.encode()
        with contextlib.closing(m.connect("control")) as client:
            assert client.request("/v1/send", "POST", headers=["Content-Type: application/json", f"Content-Length: {len(body)}"], body=body).status == 200
    assert m.get().status == 200


@pytest.mark.parametrize("balance", ["round-robin", "inherit"])
def test_node_versions(talk, node, balance):  # noqa: F811
    """Both ways, with each version; among what Node says itself."""
    t = talk("node", count=2, node=node, settings=f'balance = "{balance}";')
    for value in VALUES:
        t.tell(1, "broadcast", value)
    t.expect({2: VALUES})
    t.tell(2, "big", LONGEST)
    t.tell(2, "send", 2, "own")
    t.expect({1: ["x" * (LONGEST - 2)], 2: [*VALUES, "own"]})
    for _ in range(10):
        assert t.m.get().body == b"ok\n"
    assert t.status()["workers"]["ready"] == 2


#
# Who does not read, and who says too much
#


def stopped(process):
    process.kill(signal.SIGSTOP)
    return process


def worker_of(t, slot):
    return t.m.serving(Process(t.process(slot)["pid"], t.m))


def test_who_does_not_read(talk, kind):
    """Loses what its queue does not hold; the others get everything, the master's memory stays small, and it is the master's own
    words that are heard when it goes on."""
    t = talk(kind, settings='watchdog = "10min";')
    victim = stopped(worker_of(t, 3))
    text, began = ["x" * (99_998 + i) for i in range(20)], time.monotonic()
    for i in range(20):
        t.tell(1, "big", 100_000 + i)
        t.expect({2: text[: i + 1]})
    lost = t.m.wait_until(lambda: t.process(3)["messages_lost"], "a loss")
    assert t.process(1)["messages_lost"] == t.process(2)["messages_lost"] == 0
    told = f"Worker 3 (pid {t.process(3)['pid']}) has not got a message of another worker: it does not read what it was sent before.\n"
    assert 1 <= t.m.stderr().count(told) <= 1 + (time.monotonic() - began) // 10  # once in ten seconds
    victim.kill(signal.SIGCONT)
    t.expect({3: text[: 20 - lost]})
    t.tell(1, "broadcast", "again")
    t.expect({2: [*text, "again"], 3: [*text[: 20 - lost], "again"]})
    assert t.status()["workers"]["ready"] == 3 and "Closed the channel" not in t.m.stderr()


def test_short_ones_for_who_does_not_read(talk):
    """It is memory that is limited, and a short message takes as much as one of 90 bytes."""
    t = talk("program", count=2, settings='watchdog = "10min";')
    victim = stopped(worker_of(t, 2))
    t.tell(1, "repeat", 15_000, "broadcast", 1)
    t.tell(1, "send", 1, "all said")
    t.expect({1: ["all said"]})
    taken = 15_000 - t.process(2)["messages_lost"]
    assert 512 * 1024 / 100 < taken < 512 * 1024 / 80 + 2000  # some are with the kernel
    victim.kill(signal.SIGCONT)
    t.expect({2: [1] * taken})


def test_node_that_does_not_read_is_still_told(talk):
    """Its queue is full of what others say, and yet it can be pinged, and retired."""
    t = talk("node", count=2, settings='watchdog = "6s"; stop_timeout = "1min";')
    t.m.get()
    victim = stopped(worker_of(t, 2))
    for size in LONGEST, 50_000, 10_000, 2000, 400, 100, 20, 4:  # until there is no room for so much as that
        lost = t.process(2)["messages_lost"]

        def fill(size=size, lost=lost):
            t.tell(1, "big", size)
            return t.process(2)["messages_lost"] > lost

        t.m.wait_until(fill, f"the loss of {size} bytes")
    t.m.wait_until(lambda: "did not react" in t.m.stderr(), "the watchdog")
    assert "cannot be told anything" not in t.m.stderr()
    victim.kill(signal.SIGCONT)


WAITS = "has to wait for the rest of a second: it has said more than 64M in it"


def test_flood_of_one(talk):
    """Who says more than 64 MiB in a second is not read until it is over, and read on then; others are all the while."""
    t = talk("program", settings='watchdog = "10min";')
    begin = time.monotonic()
    t.tell(1, "storm", {"cmd": "MUSTER", "act": "broadcast", "data": {"cmd": "NODE_X"}}, 300)
    t.tell(2, "broadcast", "alive")
    t.m.wait_until(lambda: "alive" in t.heard_by(3), "a message of another")
    t.tell(1, "broadcast", "all the same")
    t.m.wait_until(lambda: t.heard_by(3) == ["alive", "all the same"], "what it has said after that")
    # All of it is 170 MiB, so that a master too slow for so much in a second has taken longer than this.
    assert f"Worker 1 (pid {worker_of(t, 1).pid}) {WAITS}" in t.m.stderr() or time.monotonic() - begin > 2.5
    assert t.process(1)["messages_refused"] == 300_000
    assert "Closed the channel" not in t.m.stderr()


def test_flood_of_copies(talk):
    """What is so much only because there are many to get it counts likewise."""
    t = talk("program", count=12, settings='watchdog = "10min";')

    for n in itertools.count():  # on a slow machine it may not be enough within a second
        t.tell(1, "repeat", 60, "big", 200_000)
        t.tell(1, "send", 1, n)
        t.m.wait_until(lambda n=n: n in t.heard_by(1), "the last of them")
        if WAITS in t.m.stderr():
            break

    def last():
        t.tell(1, "broadcast", "last")
        return "last" in t.heard_by(2)

    t.m.wait_until(last, "a message in the next second")
    assert "Closed the channel" not in t.m.stderr() and not t.process(1)["messages_refused"]


def test_storm_of_all(talk):
    """However much all of them say, the master finds the time for everything else: for its watchdog, and for telling them to end."""
    t = talk("program", count=6, settings='watchdog = "10min"; stop_timeout = "1s";', watchdog_usec=1000000)
    t.tell(0, "storm", {"cmd": "MUSTER", "act": "broadcast", "data": 1}, 1_000_000)
    t.m.wait_until(lambda: "has to wait for the rest of a second" in t.m.stderr(), "a pause")
    for _ in range(3):
        t.m.wait_message("WATCHDOG=1")
    t.m.kill()
    assert t.m.wait_exit() == 0


#
# Life and death
#


def test_reload(talk, kind):
    """Both generations are of the app: while one is replaced by the other no message is lost on the way to who is ready."""
    t = talk(kind, count=2)
    old = {p["pid"] for p in t.status()["processes"]}
    t.m.kill(signal.SIGHUP)
    n = 0
    while True:
        with contextlib.suppress(AssertionError):
            t.tell(1, "send", 2, n)
        n += 1
        processes = t.status()["processes"]
        if len(processes) == 2 and not old & {p["pid"] for p in processes} and all(p["state"] == "ready" for p in processes):
            break
    t.tell(1, "send", 2, "last")
    t.m.wait_until(lambda: "last" in t.heard_by(2), "a message in the new generation")
    assert "Closed the channel" not in t.m.stderr()


def test_successor_of_who_waited_for_room(ready, folder, apps):
    """The kernel goes on telling of room that was waited for by one that is dead: nobody is kept awake by that."""
    app = app_of("module", folder / "heard", apps)
    m = ready('workers: { count = 1; watchdog = "1h"; };', app=app, watchdog_usec=1_000_000)
    slot = m.wait_until(lambda: next((s for s in master_slots(m)() if s.twin), None), "a twin")
    client = m.connect()
    assert client.request("/").body == b"ok\n"
    m.kill(signal.SIGSTOP)
    victim = slot.worker
    assert client.request("/fill").body == b"ok\n"
    assert kill_child(slot.keeper, victim)
    assert client.request("/").body == b"ok\n" and slot.worker != victim
    m.kill(signal.SIGCONT)
    m.statuses()
    m.seen = len(m.messages)  # what it said before that is over
    for _ in range(2):
        m.wait_message("WATCHDOG=1")
    successor = Process(slot.worker, m)
    quiet = []
    for _ in range(4):  # what it did late, as we stood still, is done in one of these
        before = successor.switches(), successor.cpu_seconds()
        m.wait_message("WATCHDOG=1")
        quiet.append(successor.switches() == before[0] and successor.cpu_seconds() - before[1] < 0.1)
    assert any(quiet)
    assert client.request("/").body == b"ok\n"


def test_begun_with_more_than_there_is_room_for(ready):
    """A module that says so much before its worker listens to anything: when all is said, the worker sleeps."""
    app = f'kind = "module"; module = "{MODULES}/talk.so"; environment = {{ FULL = "1"; }};'
    m = ready('workers: { count = 1; watchdog = "1h"; twin = false; };', app=app, watchdog_usec=1_000_000)
    worker = m.worker()

    def sleeps():
        before = worker.switches(), worker.cpu_seconds()
        for _ in range(4):
            m.wait_message("WATCHDOG=1")
        return worker.switches() == before[0] and worker.cpu_seconds() - before[1] < 0.1

    m.wait_until(sleeps, "sleep")
    assert m.get().body == b"ok\n"


class Heard:
    """What the processes of one worker have counted, of the module with TRAFFIC."""

    def __init__(self, path):
        self.path = path

    def __getattr__(self, name):
        names = "good", "garbled", "twice", "published", "sent", "refused"
        if name not in names:
            raise AttributeError(name)
        with open(self.path, "rb") as f:
            return struct.unpack("=6Q", f.read(48))[names.index(name)]


def traffic(ready, folder, size, settings="", count=2):
    app = f'kind = "module"; module = "{MODULES}/talk.so"; environment = {{ TRAFFIC = "{folder}"; TRAFFIC_SIZE = "{size}"; }};'
    m = ready(f'workers: {{ count = {count}; soak = "20ms"; start_timeout = "1min"; {settings} }};', app=app,
              sockets=[("http", tcp()), ("control", unix(folder / "control"))])
    return m, [Heard(folder / f"heard.{slot + 1}.1") for slot in range(count)]


def check_traffic(m, heard):
    for h in heard:
        print(h.path.name, {name: getattr(h, name) for name in ("good", "published", "garbled", "twice", "sent", "refused")})
    assert all(h.garbled == h.twice == 0 for h in heard)
    assert "Closed the channel" not in m.stderr() and "not passed on: it has no" not in m.stderr()


@pytest.mark.parametrize("size", [500, LONGEST - 100])
@pytest.mark.parametrize("who", ["worker", "any"])
def test_deaths(ready, folder, size, who):
    """Workers are killed at any moment of talking and hearing: what is heard is whole and comes once, no channel ends, and who takes
    over talks and hears."""
    takeovers = int(os.environ.get("MUSTER_TWIN_TAKEOVERS", 12))
    m, heard = traffic(ready, folder, size)
    with Killer(master_slots(m), who=who, rate=30) as killer:
        killer.wait_takeovers(takeovers)
    before = [(h.good, h.published, h.sent) for h in heard]
    m.wait_until(lambda: all(now > then for h, b in zip(heard, before)
                             for now, then in zip((h.good, h.published, h.sent), b)), "traffic after the last take-over")
    check_traffic(m, heard)
    assert m.get().status == 200


def test_deaths_and_reload(ready, folder):
    """With both generations at once. A reload whose worker is killed in its trial fails; the next one makes a further generation."""
    m, _ = traffic(ready, folder, 20_000)
    with Killer(master_slots(m), rate=20) as killer:
        for _ in range(2):
            m.kill(signal.SIGHUP)
            m.wait_message("RELOADING=1")
            m.wait_message("READY=1")
            n = killer.takeovers()
            killer.wait_until(lambda: killer.takeovers() >= n + 2, "deaths in between")
    check_traffic(m, [Heard(path) for path in sorted(folder.glob("heard.*")) if path.stat().st_size >= 48])


def test_who_is_stopped_among_deaths(ready, folder):
    """One that stands still for a while does not hold up those that are killed."""
    m, heard = traffic(ready, folder, 100_000, 'watchdog = "10min";', count=3)
    slots = sorted(master_slots(m)(), key=lambda s: s.offset)
    victim = Process(slots[2].worker, m)
    stopped(victim)
    others = lambda: [s for s in master_slots(m)() if s.worker != victim.pid]  # noqa: E731
    with Killer(others, rate=20) as killer:
        killer.wait_until(lambda: sum(s.takeovers for s in others()) >= 4, "take-overs")
    victim.kill(signal.SIGCONT)
    n = heard[2].good
    m.wait_until(lambda: heard[2].good > n + 100, "traffic of who was stopped")
    check_traffic(m, heard)


#
# A cluster of libmuster
#


class Cluster:
    """talk_program as the primary of workers of its own kind, or of others."""

    def __init__(self, folder, n, *program):
        self.heard = folder / "heard"
        self.heard.touch()
        env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG") or k.endswith("SAN_OPTIONS")}
        self.process = subprocess.Popen([TALK, str(n), *map(str, program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                        env={**env, "HEARD": str(self.heard)})
        self.lines = []
        while len(self.lines) < n:
            self.lines.append(self.line())
        assert sorted(self.lines) == [f"ready {slot + 1}" for slot in range(n)]

    def line(self):
        assert select.select([self.process.stdout], [], [], DEADLINE)[0]
        return self.process.stdout.readline().decode().rstrip("\n")

    def tell(self, slot, *command):
        self.process.stdin.write(f"{slot} {json.dumps(list(command), separators=(',', ':'))}\n".encode())
        self.process.stdin.flush()

    heard_lines = Talk.lines
    heard_by = Talk.heard_by

    def expect(self, heard):
        end = time.monotonic() + DEADLINE
        while {slot: Cluster.by(self, slot) for slot in heard} != heard:
            assert time.monotonic() < end, [Cluster.by(self, slot) for slot in heard]
            select.select([], [], [], 0.005)

    def by(self, slot):
        return [text for s, text in Talk.lines(self) if s == slot and not (isinstance(text, dict) and "result" in text)]

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(DEADLINE) == 0
        self.process.stdout.close()


CLUSTERS = {"libmuster": [], "raw": RAW}


@pytest.mark.parametrize("program", CLUSTERS)
def test_cluster(folder, program):
    """The same words, and the same bounds, with a C program as the parent."""
    with contextlib.closing(Cluster(folder, 3, *CLUSTERS[program])) as c:
        for value in VALUES:
            c.tell(2, "broadcast", value)
        c.tell(2, "send", 3, "to 3")
        c.tell(2, "send", 2, "to 2")
        c.tell(2, "send", 9, "to nobody")
        c.tell(2, "big", LONGEST)
        big = "x" * (LONGEST - 2)
        c.expect({1: [*VALUES, big], 2: ["to 2"], 3: [*VALUES, "to 3", big]})


def test_cluster_wrong(folder):
    """The primary passes on nothing that is wrong, and nothing of it reaches the application."""
    with contextlib.closing(Cluster(folder, 2, *RAW)) as c:
        for message in WRONG:
            c.tell(1, "raw", message)
        c.tell(1, "raw", {"cmd": "MUSTER", "act": "publish", "data": 1})
        c.tell(1, "raw", {"hello": 1})
        c.expect({1: [], 2: [{"cmd": "MUSTER", "act": "publish", "data": 1}]})
        assert c.line() == 'message 1 {"hello": 1}'


def test_cluster_who_does_not_read(folder):
    """Costs the primary a bounded queue, and the others nothing."""
    with contextlib.closing(Cluster(folder, 3)) as c:
        c.tell(3, "send", 3, "here")
        c.expect({3: ["here"]})
        pid = next(int(line.split(b" ")[1]) for line in c.heard.read_bytes().splitlines() if line.startswith(b"3 "))
        os.kill(pid, signal.SIGSTOP)
        try:
            big = "x" * 199_998
            for i in range(20):
                c.tell(1, "big", 200_000)
                c.expect({2: [big] * (i + 1)})
        finally:
            os.kill(pid, signal.SIGCONT)
        c.tell(1, "broadcast", "last")
        c.expect({2: [big] * 20 + ["last"]})
        end = time.monotonic() + DEADLINE
        while "last" not in c.by(3) and time.monotonic() < end:
            c.tell(1, "broadcast", "last")
            select.select([], [], [], 0.01)
        assert 1 <= c.by(3).count(big) < 10
