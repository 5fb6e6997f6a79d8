# SPDX-License-Identifier: MIT
import contextlib
import pathlib
import shutil
import subprocess

import pytest

from harness import Master
from node_app import APPS

NODE_PACKAGES = APPS.parents[2] / "node-packages"


@pytest.fixture
def start():
    """A function that starts a musterd, which is gone when the test ends."""
    with contextlib.ExitStack() as stack:

        def start_master(*args, **kwargs):
            master = Master(*args, **kwargs)
            stack.callback(master.close)
            return master

        yield start_master


@pytest.fixture
def ready(start):
    """Likewise, and it is ready when the function returns."""

    def start_ready(*args, **kwargs):
        master = start(*args, **kwargs)
        master.wait_ready()
        return master

    return start_ready


@pytest.fixture(scope="session")
def apps(tmp_path_factory):
    """The folder of the apps of node/apps; those that need a package of npm need the fixture `packages` too."""
    return pathlib.Path(shutil.copytree(APPS, tmp_path_factory.mktemp("node") / "apps"))


@pytest.fixture(scope="session")
def packages(apps):
    """Packages of npm are there for the apps."""
    r = subprocess.run([NODE_PACKAGES], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    if r.returncode != 0:
        pytest.skip(r.stderr.strip())
    (apps / "node_modules").symlink_to(pathlib.Path(r.stdout.strip()) / "node_modules")
