# SPDX-License-Identifier: MIT
"""Programs that use the shared state: state_client.c, told by lines what to do, and what it tells put into objects.

What is asked for returns at once and is carried out while anything is waited for, of any client. All that the client tells is kept
in the order in which it happened, with the time of the monotonic clock. Whatever it says breaks a promise fails the test."""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
import weakref

from harness import BUILD_DIR, DEADLINE

PROGRAM = BUILD_DIR / "tests/integration/state_client"
PLUGINS = BUILD_DIR / "src/state"
everybody = weakref.WeakSet()
KEY_MAX, VALUE_MAX, MESSAGE_MAX = 511, 16 * 1024 * 1024, 4096
WAITING_MAX, WAITING_BYTES_MAX, PAGE_MAX = 10000, 64 * 1024 * 1024, 1000


class Pattern:
    """Many bytes, which the client makes and recognizes by itself."""

    def __init__(self, size, seed=0):
        self.size, self.seed = size, seed

    def word(self):
        return f"*{self.size}:{self.seed}"

    def __eq__(self, other):
        return isinstance(other, Pattern) and (self.size, self.seed) == (other.size, other.seed)

    def __hash__(self):
        return hash((self.size, self.seed))

    def __repr__(self):
        return f"Pattern({self.size}, {self.seed})"


class Text(str):
    """A key that is given with the size -1."""


def to_word(value):
    if value is None:
        return "~"
    if isinstance(value, Pattern):
        return value.word()
    if isinstance(value, Text):
        return "'" + value
    if isinstance(value, str):
        value = value.encode()
    return value.hex() or "-"


def from_word(word):
    if word == "~":
        return None
    if word == "-":
        return b""
    if word.startswith("*"):
        size, seed = word[1:].split(":")
        return Pattern(int(size), int(seed))
    return bytes.fromhex(word)


class Told:
    """A line of the client."""

    def __init__(self, index, line):
        words = line.split(" ")
        self.index, self.time, self.kind, self.words = index, int(words[0]) / 1e6, words[1], words[2:]
        self.id = int(self.words[0]) if self.words[0].isdigit() else None

    def __repr__(self):
        return f"<{self.time:.6f} {self.kind} {' '.join(self.words)[:200]}>"


class Result(Told):
    """How an operation has ended: what its handler was told, or (.refused) what the call returned."""

    def __init__(self, index, line):
        super().__init__(index, line)
        self.refused = self.kind == "c"
        self.error = self.words[1]
        self.version = 0 if self.refused else int(self.words[2])
        if self.error == "0":
            self.value, self.number, self.cursor = from_word(self.words[3]), int(self.words[4]), from_word(self.words[5])
            self.keys = [] if self.words[6] == "-" else [from_word(key) for key in self.words[6].split(",")]

    def ok(self):
        assert self.error == "0", self
        return self


class Change(Told):
    def __init__(self, index, line):
        super().__init__(index, line)
        self.error = self.words[1]
        self.text = from_word(self.words[2]).decode()

    def __repr__(self):
        return f"<{self.time:.6f} change {self.id} {self.error} {self.text!r}>"


class Message(Told):
    def __init__(self, index, line):
        super().__init__(index, line)
        self.data = from_word(self.words[1])


class Turn(Told):
    """What the handler of a lease was told, or (kind v) what was asked for."""

    def __init__(self, index, line):
        super().__init__(index, line)
        self.held = self.words[1] == "1"
        self.is_held = self.words[-2] == "1"
        self.fence = int(self.words[-1])


KINDS = {"r": Result, "c": Result, "h": Change, "s": Message, "l": Turn, "v": Turn}


class Asked:
    """Something that was asked for, under its own ID."""

    def __init__(self, client, number):
        self.client, self.id, self.told = client, number, []

    def wait(self, condition=lambda told: True, after=0, timeout=DEADLINE):
        """The first thing told of it, from number @after on, that meets the condition."""

        def find():
            return next((told for told in self.told[after:] if condition(told)), None)

        return self.client.wait(find, f"what was asked for as {self.id}; told of it: {self.told[-5:]}", timeout)

    def result(self, timeout=DEADLINE):
        return self.wait(lambda told: told.kind in "rc", timeout=timeout)

    # of subscriptions

    def effective(self):
        """Waits until the subscription takes effect."""
        self.wait(lambda told: told.kind == "s" and told.data is None)
        return self

    def messages(self):
        return [told.data for told in self.told if told.kind == "s"]

    def wait_messages(self, *wanted, timeout=DEADLINE):
        """Waits until as many have come as are wanted, and compares."""
        self.client.wait(lambda: len(self.messages()) >= len(wanted), f"{len(wanted)} messages", timeout)
        assert self.messages() == list(wanted)

    def unsubscribe(self):
        self.client.say(f"unsubscribe {self.id}")

    # of leases

    def turns(self):
        return [told for told in self.told if told.kind in "l"]

    def wait_held(self, held=True, after=0, timeout=DEADLINE):
        return self.wait(lambda told: told.kind == "l" and told.held == held, after, timeout)

    def held(self):
        """Asks whether it is held, and for the fence."""
        n = len(self.told)
        self.client.say(f"held {self.id}")
        return self.wait(lambda told: told.kind == "v", n)

    def release(self):
        self.client.say(f"release {self.id}")

    def then(self, command):
        """Within the next call of its handler."""
        self.client.say(f"then {self.id} {command}")
        return self


class Client:
    """A process. @url: opened as the handle 0, which all that is asked for without .handle is asked of."""

    def __init__(self, url=None, prefix=(), environment=None, uid=None, **options):
        self.env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG") or k.endswith("SAN_OPTIONS")}
        self.env["MUSTER_PLUGINDIR"] = str(PLUGINS)
        self.env.update(environment or {})
        who = {"user": uid, "group": uid, "extra_groups": []} if uid is not None else {}
        self.stderr_file = tempfile.TemporaryFile()  # pylint: disable=consider-using-with
        self.process = subprocess.Popen([*prefix, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,  # pylint: disable=consider-using-with
                                        stderr=self.stderr_file, env=self.env, **who)
        self._use(self.process.stdin.fileno(), self.process.stdout.fileno())
        if url is not None:
            self.open(url, **options)

    @classmethod
    def of_connection(cls, sock):
        """One that somebody else has started, with a socket instead of its standard streams; it takes the path as its argument."""
        self = cls.__new__(cls)
        self.process, self.stderr_file, self.sock = None, None, sock
        self.given_pid = struct.unpack("iii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self._use(sock.fileno(), sock.fileno())
        return self

    def _use(self, to, of):
        self.to, self.of = to, of
        os.set_blocking(to, False)
        os.set_blocking(of, False)
        self.unsent, self.unread, self.ended = bytearray(), b"", False
        self.told, self.asked, self.next_id, self.handle = [], {}, 1, 0
        self.broken = []
        everybody.add(self)
        self.wait(lambda: any(told.kind == "p" for told in self.told), "its start")

    @property
    def pid(self):
        return self.process.pid if self.process else self.given_pid

    # Lines

    def say(self, line):
        self.unsent += line.encode() + b"\n"

    def batch(self, lines):
        """Carried out one after the other without the client's loop running between them."""
        lines = list(lines)
        self.say("\n".join([f"batch {len(lines)}", *lines]))

    @contextlib.contextmanager
    def batched(self):
        """All that is asked for within is a batch."""
        before, self.unsent = self.unsent, bytearray()
        yield
        lines, self.unsent = self.unsent, before
        self.say(f"batch {lines.count(10)}")
        self.unsent += lines

    def pump(self, timeout=0):
        """Sends what is to be sent and takes what is told, for that long, or until there is something."""
        readable, writable, _ = select.select([] if self.ended else [self.of], [self.to] if self.unsent else [], [], timeout)
        if writable:
            try:
                del self.unsent[: os.write(self.to, self.unsent[: 1 << 16])]
            except BrokenPipeError:
                self.unsent.clear()
        if readable:
            try:
                self._take(os.read(self.of, 1 << 20))
            except ConnectionResetError:
                self._take(b"")

    def _take(self, data):
        if not data:
            self.ended = True
        *lines, self.unread = (self.unread + data).split(b"\n") if b"\n" in data else (self.unread + data,)
        for line in lines:
            self._told(line.decode())

    def _told(self, line):
        told = KINDS.get(line.split(" ", 2)[1], Told)(len(self.told), line)
        self.told.append(told)
        if told.kind in "rcslv" and told.id in self.asked:
            self.asked[told.id].told.append(told)
        if told.kind == "x":
            self.broken.append(told)

    def wait(self, condition, what, timeout=DEADLINE):
        """Until the condition, of what is told, is true. Returns what it found."""
        return wait_for([self], condition, what, timeout)

    def ping(self):
        """Waits until all that was said before has been carried out; its operations may not have ended."""
        text = f"ping{len(self.told)}-{self.next_id}"
        self.next_id += 1
        self.say(f"ping {text}")
        return self.wait(lambda: next((t for t in reversed(self.told) if t.kind == "p" and t.words == [text]), None), "its answer")

    # Handles

    def open(self, url, handle=0, wait=True, **options):
        """@options: timeout=USEC, credential=PATH, required=True, plain=True. Returns what muster_state_open() did. An operation has a
        minute, if nothing else is said: what a machine under load takes for many is no failure."""
        options.setdefault("timeout", 60_000_000)
        words = [name if value is True else f"{name}={value}" for name, value in options.items() if value is not None]
        n = len(self.told)
        self.say(" ".join(["open", str(handle), to_word(url), *words]))
        if not wait:
            return None
        return self.wait(lambda: next((t.words[1] for t in self.told[n:] if t.kind == "o"), None), "open")

    def close_handle(self, handle=None):
        n = len(self.told)
        self.say(f"close {self.handle if handle is None else handle}")
        return self.wait(lambda: next((t for t in self.told[n:] if t.kind == "k"), None), "close")

    def changes(self, handle=0):
        return [told for told in self.told if told.kind == "h" and told.id == handle]

    def wait_change(self, error, after=0, timeout=DEADLINE, handle=0):
        """A change with that error, from number @after on."""
        return self.wait(lambda: next((c for c in self.changes(handle)[after:] if c.error == error), None),
                         f"a change with {error}, of: {self.changes(handle)}", timeout)

    def wait_connected(self, after=0):
        return self.wait_change("0", after)

    def is_connected(self, handle=0):
        n = len(self.told)
        self.say(f"connected {handle}")
        return self.wait(lambda: next((t.words[1] for t in self.told[n:] if t.kind == "n"), None), "whether it is connected") == "1"

    # Operations

    def ask(self, verb, *words, handle=None, **options):
        number = self.next_id
        self.next_id += 1
        asked = self.asked[number] = Asked(self, number)
        rest = [name if value is True else f"{name}={value}" for name, value in options.items() if value is not None]
        self.say(" ".join([verb, str(number), str(self.handle if handle is None else handle), *map(str, words), *rest]))
        return asked

    def within(self, asked, ask, *args, **kw):
        """Asks from within the next call of a handler."""
        before, self.unsent = self.unsent, bytearray()
        later = ask(*args, **kw)
        line, self.unsent = self.unsent.decode().strip(), before
        asked.then(line)
        return later

    def ask_get(self, key, **kw):
        return self.ask("get", to_word(key), **kw)

    def ask_set(self, key, value, **kw):
        """@kw: ttl=USEC, absent=True, version=N."""
        return self.ask("set", to_word(key), to_word(value), **kw)

    def ask_delete(self, key, **kw):
        return self.ask("delete", to_word(key), **kw)

    def ask_add(self, key, difference, **kw):
        return self.ask("add", to_word(key), difference, **kw)

    def ask_scan(self, prefix, cursor=None, **kw):
        return self.ask("scan", to_word(prefix), to_word(cursor), **kw)

    def ask_publish(self, channel, data, **kw):
        return self.ask("publish", to_word(channel), to_word(data), **kw)

    def subscribe(self, channel, **kw):
        return self.ask("subscribe", to_word(channel), **kw)

    def lease(self, name, ttl, **kw):
        """@ttl: seconds."""
        return self.ask("lease", to_word(name), int(ttl * 1e6), **kw)

    def get(self, key, **kw):
        return self.ask_get(key, **kw).result()

    def set(self, key, value, **kw):
        return self.ask_set(key, value, **kw).result()

    def delete(self, key, **kw):
        return self.ask_delete(key, **kw).result()

    def add(self, key, difference, **kw):
        return self.ask_add(key, difference, **kw).result()

    def scan(self, prefix, cursor=None, **kw):
        return self.ask_scan(prefix, cursor, **kw).result()

    def publish(self, channel, data, **kw):
        return self.ask_publish(channel, data, **kw).result()

    def value(self, key):
        """The value of a key; None: there is none. That of no bytes may be NULL."""
        r = self.get(key)
        return None if r.error == "ENOENT" else r.ok().value or b""

    def scan_all(self, prefix, limit=None):
        """The keys of all pages, and how many there were of these."""
        keys, cursor, n = [], None, 0
        while True:
            r = self.scan(prefix, cursor, limit=limit).ok()
            keys += r.keys
            cursor, n = r.cursor, n + 1
            if cursor is None:
                return keys, n
            assert len(cursor) > 0

    # The process

    def kill(self, signo=signal.SIGKILL):
        self.process.send_signal(signo)

    def stop(self):
        """Stands still, all of it, when this returns."""
        self.kill(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self):
        self.kill(signal.SIGCONT)

    def stderr(self):
        self.stderr_file.seek(0)
        return self.stderr_file.read().decode(errors="replace")

    def finish(self):
        """Has it close everything and end, checks that it ends well and that no promise was broken."""
        while self.unsent and not self.ended:
            self.pump(DEADLINE)
        everybody.discard(self)
        self.process.stdin.close()
        self.wait(lambda: self.ended, "its end")
        status = self.process.wait(DEADLINE)
        assert status == 0, f"it ended with {status}: {self.stderr()}"
        assert not self.broken, self.broken

    def close(self):
        """For the end of a test, whatever the client is doing."""
        everybody.discard(self)
        if self.process is None:
            self.sock.close()
            return
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.stderr_file.close()


def wait_for(clients, condition, what, timeout=DEADLINE):
    """Until the condition, of what these clients tell, is true. Returns what it found."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        rest = end - time.monotonic()
        for c in clients:
            assert not c.broken, c.broken
        assert rest > 0, f"did not happen within {timeout} s: {what}; last told: {[c.told[-8:] for c in clients]}"
        live = [c for c in {*clients, *(c for c in everybody if c.unsent)} if not c.ended]
        if all(c.ended for c in clients):
            assert condition(), f"ended before: {what}; {[c.stderr() for c in clients if c.stderr_file]}; {[c.told[-8:] for c in clients]}"
            continue
        select.select([c.of for c in live], [c.to for c in live if c.unsent], [], rest)
        for c in live:
            c.pump()
    return found


def until(condition, what, timeout=DEADLINE):
    """For what has no event of its own: asks again and again. Returns what the condition found."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: did not happen within {timeout} s"
        select.select([], [], [], 0.001)
    return found


def results_of(asked, timeout=DEADLINE):
    """The results of all of these, in the order in which they were asked for."""
    asked = list(asked)
    clients = list({id(a.client): a.client for a in asked}.values())
    left = set(range(len(asked)))

    def ended():
        left.difference_update([i for i in left if any(told.kind in "rc" for told in asked[i].told)])
        return not left

    wait_for(clients, ended, f"the end of {len(asked)} operations", timeout)
    return [next(told for told in a.told if told.kind in "rc") for a in asked]
