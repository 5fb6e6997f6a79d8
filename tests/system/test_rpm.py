# SPDX-License-Identifier: MIT
"""The .rpm, installed with its scriptlets where systemd runs."""

import shutil

import pytest

from client import Load, get, whoami, workers

SOCKET = '/run/muster-sockets/web.sock'


@pytest.fixture
def rpm(bare_machine, packages):
    """--nodeps: what Debian has installed is not in the database of rpm."""
    for package in packages.rpms('muster', 'muster-libs'):
        shutil.copy(package, bare_machine.path('/root'))
    bare_machine.run('rpm', '--initdb')
    bare_machine.run('sh', '-c', 'rpm --install --nodeps /root/*.rpm')
    return bare_machine


def test_serves(rpm):
    """Installed, not started; systemctl start muster.socket, and the first request is answered."""
    assert rpm.unit('muster.socket').ActiveState == 'inactive'
    rpm.systemctl('start', 'muster.socket')
    assert rpm.unit('muster.service').ActiveState == 'inactive'
    assert b'<html' in get(rpm)[1]
    workers(rpm)
    rpm.wait_unit('muster.service', 'active')  # a worker answers before the master has said that the app is served
    rpm.run('journalctl', '--sync')
    assert 'Subject: The app default is served' in rpm.run('journalctl', '--no-pager', '-x', '-u', 'muster').stdout


def test_upgrade(rpm):
    """An upgrade (here: of the package by itself) restarts the services, instances too, and touches no socket."""
    rpm.write('/etc/muster/web.conf', 'app: { kind = "static"; directory = "/usr/share/muster/welcome"; whoami = true; };\n')
    rpm.systemctl('start', 'muster.socket', 'muster@web.socket')
    before = whoami(rpm)['pid'], whoami(rpm, address=SOCKET)['pid']
    sockets = [rpm.unit(unit).InvocationID for unit in ('muster.socket', 'muster@web.socket')]

    with Load(rpm, 2) as load:
        rpm.run('sh', '-c', 'rpm --upgrade --force --nodeps /root/*.rpm')
    assert not load.failures
    assert whoami(rpm)['pid'] not in before and whoami(rpm, address=SOCKET)['pid'] not in before
    assert sockets == [rpm.unit(unit).InvocationID for unit in ('muster.socket', 'muster@web.socket')]


def test_removal(rpm):
    """A removal stops everything, instances too."""
    rpm.write('/etc/muster/web.conf', 'app: { kind = "static"; directory = "/usr/share/muster/welcome"; };\n')
    rpm.systemctl('start', 'muster.socket', 'muster@web.socket')
    assert get(rpm)[0] == get(rpm, address=SOCKET)[0] == 200
    rpm.run('rpm', '--erase', 'muster', 'muster-libs')
    assert not rpm.run('pgrep', '-a', 'muster', check=False).stdout
    assert 'muster' not in rpm.systemctl('list-units', '--all', '--plain', '--no-legend').stdout
    assert not rpm.live_path('/run/muster-sockets').exists()
