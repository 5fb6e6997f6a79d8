# SPDX-License-Identifier: MIT
"""Workers with a module: those of tests/integration/modules and the examples."""

import contextlib
import os
import pathlib
import select

from worker_harness import BUILD_DIR, READY, Worker

MODULES = (BUILD_DIR / "tests/integration/modules").resolve()
EXAMPLES = (BUILD_DIR / "packaging/examples").resolve()
# with a sanitizer, a signal is still to end a worker, and not a report
SIGNALS = "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0:use_sigaltstack=0"


class ModuleWorker(Worker):
    """A worker with a module in place of a site; what it says on stderr is kept."""

    def __init__(self, module, *options, environment=None, directory="/tmp", **kwargs):
        self.said_fd, self.stderr_fd = self._open_stderr()
        self.said = b""
        asan = ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), SIGNALS)))
        super().__init__(directory, f"--module={module}", *options, environment={"ASAN_OPTIONS": asan, **(environment or {})}, **kwargs)
        os.close(self.stderr_fd)

    def _open_stderr(self):
        """Its ends, to read from and to write to."""
        return os.pipe2(os.O_CLOEXEC)

    def _spawn(self, changes):
        saved = os.dup(2)
        try:
            os.dup2(self.stderr_fd, 2)
            return super()._spawn(changes)
        finally:
            os.dup2(saved, 2)
            os.close(saved)

    def stderr(self):
        """What it has said so far."""
        while select.select([self.said_fd], [], [], 0)[0]:
            data = os.read(self.said_fd, 65536)
            if not data:
                break
            self.said += data
        return self.said.decode()

    def text(self, target, **kwargs):
        answer = self.get(target, **kwargs)
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def rss(self):
        return self.smaps("Rss")

    def close(self):
        super().close()
        os.close(self.said_fd)


def deeds(*options, **kwargs):
    return ModuleWorker(MODULES / "deeds.so", *options, **kwargs).wait_state(READY)


def example(name, *options, **kwargs):
    return ModuleWorker(EXAMPLES / f"{name}.so", *options, **kwargs).wait_state(READY)


def read_stream(client):
    """The head and the body of an answer in chunks, with its trailers; reads to its end."""
    while b"\r\n\r\n" not in client.buffer:
        assert client.fill()
    head, client.buffer = client.buffer.split(b"\r\n\r\n", 1)
    body = b""
    while True:
        while b"\r\n" not in client.buffer:
            assert client.fill()
        size, client.buffer = client.buffer.split(b"\r\n", 1)
        n = int(size, 16)
        if n == 0:
            break
        while len(client.buffer) < n + 2:
            assert client.fill()
        body += client.buffer[:n]
        assert client.buffer[n : n + 2] == b"\r\n"
        client.buffer = client.buffer[n + 2 :]
    while not client.buffer.startswith(b"\r\n") and b"\r\n\r\n" not in client.buffer:
        assert client.fill()
    if client.buffer.startswith(b"\r\n"):
        trailers, client.buffer = b"", client.buffer[2:]
    else:
        trailers, client.buffer = client.buffer.split(b"\r\n\r\n", 1)
    return head.decode(), body, trailers.decode()


@contextlib.contextmanager
def connected(worker, **kwargs):
    client = worker.connect(**kwargs)
    try:
        yield client
    finally:
        client.close()


def send_request(client, target, method="GET", headers=()):
    client.send("\r\n".join([f"{method} {target} HTTP/1.1", "Host: test", *headers, "", ""]).encode())


