# SPDX-License-Identifier: MIT
"""Fixtures of the system suite: each test runs on Debian 12 and on Debian 13, on a machine of its own.

    /usr/bin/python3 -m pytest tests/system                    both
    /usr/bin/python3 -m pytest tests/system --suite=trixie     one of them
"""

import shutil
import signal

import pytest

import lifecycle_machine
import packages as packages_module
from machine import SUITES, Machine, app_tree, cannot_run

unable = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption('--suite', choices=SUITES, action='append', help='test on this Debian only')


def pytest_configure(config):
    config.stash[unable] = cannot_run()
    # A run that is told to end takes its machines down as one that is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    reason = config.stash[unable]
    if reason:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_generate_tests(metafunc):
    if 'suite' in metafunc.fixturenames:
        metafunc.parametrize('suite', metafunc.config.getoption('suite') or list(SUITES), scope='session')


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    machine = item.funcargs.get('machine') or item.funcargs.get('app_machine')
    # Here the machine still runs; at the time of the teardown's report it is gone.
    if report.when == 'call' and report.failed and machine:
        log = machine.run('journalctl', '--no-pager', '--boot', '--lines=150', check=False).stdout
        report.sections.append(('the journal of the machine', log))


@pytest.fixture(scope='session')
def packages(suite):
    """The packages, built from this tree on that Debian."""
    return packages_module.build(suite)


@pytest.fixture(scope='session')
def programs(tmp_path_factory):
    """The folder of those that lifecycle_machine.py needs."""
    if not shutil.which('cc'):
        pytest.skip('no compiler for the programs of the tests')
    folder = tmp_path_factory.mktemp('programs')
    lifecycle_machine.compile_programs(folder)
    return folder


@pytest.fixture
def bare_machine(suite):
    """A booted machine without muster."""
    machine = Machine(suite)
    yield machine
    machine.close()


@pytest.fixture
def machine(bare_machine, packages):
    """A booted machine on which the package was installed, as a person does it, and nothing else done."""
    packages_module.install(bare_machine, packages)
    return bare_machine


@pytest.fixture(scope='module')
def app_machine(suite, packages):
    """The same with other people's programs on it, for all tests of a module."""
    machine = Machine(suite, app_tree)
    try:
        packages_module.install(machine, packages)
        yield machine
    finally:
        machine.close()


@pytest.fixture
def served(machine):
    """A machine on which the default app is served."""
    machine.systemctl('start', 'muster.socket')
    machine.systemctl('start', 'muster.service')
    return machine
