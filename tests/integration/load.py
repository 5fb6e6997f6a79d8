# SPDX-License-Identifier: MIT
"""Constant load on a server, and an account of what became of every request. What counts as a failure, and what does
not, is told at the top of load_client.c.

    with load.of(m, connections=16, fresh=4) as clients:
        …
        clients.wait(1000)         # so many more were answered, of requests that were begun after this
    clients.check()                # not one has failed
"""

import json
import os
import select
import subprocess
import time

from worker_harness import BUILD_DIR, DEADLINE

PROGRAM = BUILD_DIR / "tests/integration/load_client"


def address_of(sock):
    """As the client takes it: the path of a unix socket, or the port."""
    name = sock.getsockname()
    return name if isinstance(name, str) else name[1]


class Account:
    """How it stands: `answered`, `failed` by kind, `first` failures, `connected` (connections made), `announced` and
    `clean` (connections that the server ended rightly), `latency` (usec)."""

    def __init__(self, line):
        self.__dict__.update(json.loads(line))

    @property
    def failures(self):
        return sum(self.failed.values())

    def __str__(self):
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.failed.items() if n) or "none"
        lines = [f"{self.answered} answered over {self.connected} connections, failed: {kinds}"]
        lines += [f"  {told['at']:.6f}: {told['failure']}: {told['detail']}" for told in self.first]
        return "\n".join(lines)


class Load:
    def __init__(self, address, connections=16, fresh=0, rate=None, limit=5.0, target="/", body="hello\n", pin=None,
                 command=(PROGRAM,)):
        """@rate: requests a second of all together; None: as fast as they are answered. @limit: seconds. @pin: CPUs.
        @command: the program, with what is to start it."""
        options = {"connections": connections, "fresh": fresh, "limit": round(limit * 1000), "target": target, "body": body}
        if rate:
            options["rate"] = rate
        argv = [*map(str, command), str(address), *(f"--{name}={value}" for name, value in options.items())]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if pin:
            os.sched_setaffinity(self.process.pid, pin)
        self.buffer = b""
        self.account = None

    def _read(self, what, timeout):
        end = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            assert ready, f"the load did not {what} within {timeout} s: {self._state()}"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"the load client has ended with {self.process.wait()}"
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return Account(line)

    def _command(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def _state(self):
        self._command("count")
        with open(self.process.stdout.fileno(), "rb", buffering=0, closefd=False) as out:
            return Account(out.read(65536).split(b"\n")[-2])

    def _ask(self, text, timeout=DEADLINE):
        self._command(text)
        return self._read(text, timeout)

    def count(self):
        return self._ask("count")

    def wait(self, n, timeout=DEADLINE):
        """Until so many requests were answered that were begun after this call."""
        return self._ask(f"wait {n}", timeout)

    def reset(self):
        """As count; from here on the latencies count anew."""
        return self._ask("reset")

    def pause(self):
        """Until none is under way; all connections are closed."""
        return self._ask("pause")

    def resume(self):
        return self._ask("resume")

    def stop(self):
        if self.account is None:
            self.process.stdin.close()
            self.account = self._read("stop", DEADLINE)
            self.process.wait(DEADLINE)
            self.process.stdout.close()
        return self.account

    def check(self):
        """The load has done its work, and not one request has failed."""
        account = self.stop()
        assert account.answered > 0
        assert account.failures == 0, str(account)
        return account

    def close(self):
        if self.account is None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        self.close()


def of(m, **options):
    """On a Master of the harness, whose site says "hello"."""
    return Load(address_of(m.socket_list[0][1]), **options)
