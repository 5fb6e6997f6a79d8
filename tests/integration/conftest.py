# SPDX-License-Identifier: MIT
import contextlib
import pathlib
import shutil
import subprocess

import pytest

from harness import Master
from node_app import APPS
from state_program import Client
from state_stores import STORES, Lmdb, Postgresql, Redis, wanted_stores

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


# Shared state


@contextlib.contextmanager
def started(store):
    try:
        store.start()
        yield store
    finally:
        store.close()


@pytest.fixture(scope="session")
def postgresql_server():
    """The one of all tests; it is well again for each."""
    with contextlib.closing(Postgresql()) as server:
        yield server


def a_store(request, kind, **options):
    """A fixture's generator: an empty one, started."""
    if kind.name not in wanted_stores():
        pytest.skip(f"{kind.name} is not wanted")
    if kind.missing():
        pytest.skip(kind.missing())
    if kind is Postgresql:
        server = request.getfixturevalue("postgresql_server")
        server.renew()
        yield server
    else:
        with started(kind(**options)) as s:
            yield s


@pytest.fixture(params=wanted_stores())
def store(request):
    """Each kind in turn."""
    yield from a_store(request, STORES[request.param])


@pytest.fixture(params=[name for name in wanted_stores() if STORES[name].has_server])
def server(request):
    """Each kind with a server in turn: it may be killed, and what it had acknowledged is there when it is started again."""
    kind = STORES[request.param]
    yield from a_store(request, kind, **({"durable": True} if kind is Redis else {}))


@pytest.fixture
def lmdb(request):
    yield from a_store(request, Lmdb)


@pytest.fixture
def redis(request):
    yield from a_store(request, Redis)


@pytest.fixture
def postgresql(request):
    yield from a_store(request, Postgresql)


@pytest.fixture
def client(request):
    """A function that starts a program with an open store. In the end each that was not killed must close and end well."""
    clients, failed = [], request.session.testsfailed

    def start_client(*args, **kwargs):
        clients.append(Client(*args, **kwargs))
        return clients[-1]

    try:
        yield start_client
        if request.session.testsfailed == failed:
            for c in clients:
                if c.process.poll() is None:
                    c.finish()
    finally:
        for c in clients:
            c.close()
