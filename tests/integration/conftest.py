# SPDX-License-Identifier: MIT
import contextlib

import pytest

from harness import Master


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
