# SPDX-License-Identifier: MIT
"""lifecycle_worker in place of muster-worker: what it can be told is at the top of lifecycle_worker.c.

    life = Lifecycle(tmp_path)
    m = ready(environment=life.environment)
    m.get("/suicide")
"""

import contextlib
import pathlib

from harness import Process
from worker_harness import BUILD_DIR

PROGRAM = BUILD_DIR / "tests/integration/lifecycle_worker"
OTHERS = BUILD_DIR / "src/admin/muster-admin", BUILD_DIR / "src/exec/muster-exec"


class Lifecycle:
    def __init__(self, folder, mode=""):
        self.libexec = pathlib.Path(folder) / "lifecycle"
        self.libexec.mkdir()
        (self.libexec / "muster-worker").symlink_to(PROGRAM)
        for program in OTHERS:
            (self.libexec / program.name).symlink_to(program)
        self.mode_file = self.libexec / "mode"
        self.set_mode(mode)

    @property
    def environment(self):
        return {"MUSTER_LIBEXECDIR": str(self.libexec), "LIFECYCLE_MODE_FILE": str(self.mode_file)}

    def set_mode(self, mode):
        """For the workers that are started from now on."""
        new = self.mode_file.with_suffix(".new")
        new.write_text(mode)
        new.rename(self.mode_file)


def tell(m, command):
    """The body of the answer, as text, of whichever worker heard it."""
    answer = m.get(command)
    assert answer.status == 200, command
    return answer.body.decode().strip()


def grandchild(m, command="/fork"):
    return Process(int(tell(m, command)))


@contextlib.contextmanager
def connected(m, pid):
    """A connection to the worker with that pid: others are left alone until it is the one that accepts."""
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            client = stack.enter_context(contextlib.closing(m.connect()))
            if f'"pid":{pid},' in client.request("/whoami").body.decode():
                yield client
                return
        raise AssertionError(f"worker {pid} accepts no connection")
