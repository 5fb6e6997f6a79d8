# SPDX-License-Identifier: MIT
"""packaging/quickstart where systemd runs: it does the main job, and takes away what it brought and nothing else."""

import shutil
import subprocess

import pytest
from machine import TOP


@pytest.fixture
def checkout(bare_machine, packages):
    """The script as it is, beside packages that are built already: a machine of the tests has no network."""
    tree = bare_machine.path('/root/muster')
    for name in 'src', 'units', 'packaging':
        shutil.copytree(TOP / name, tree / name)
    shutil.copy(TOP / 'meson.build', tree)
    (tree / 'build/packages').mkdir(parents=True)
    for package in packages.debs('muster', 'libmuster0'):
        shutil.copyfile(package, tree / 'build/packages' / package.name)
    return bare_machine


def quickstart(machine):
    return machine.run('/root/muster/packaging/quickstart', timeout=200).stdout


def state_of(machine, package):
    return machine.run('dpkg-query', '-W', '-f', '${db:Status-Status}', package, check=False).stdout.strip()


def test_fresh_machine(checkout):
    """Page, workers, status and log are shown; afterwards it is as if nothing had been."""
    out = quickstart(checkout)
    assert 'muster.socket is active, muster.service is inactive' in out
    assert 'HTTP/1.1 200 OK' in out
    assert ') answered ' in out and ' workers ready, ' in out and 'Serving default with' in out
    for package in 'muster', 'libmuster0':
        assert state_of(checkout, package) != 'installed'
    for path in '/etc/muster', '/var/lib/muster', '/var/lib/private/muster', '/var/log/private/muster', '/usr/bin/musterd':
        assert not checkout.path(path).exists(), path


def test_configuration_of_somebody(checkout):
    """A configuration that was there before stays."""
    checkout.write('/etc/muster/web.conf', 'app: { };\n')
    quickstart(checkout)
    assert state_of(checkout, 'muster') != 'installed'
    assert checkout.path('/etc/muster/web.conf').exists()


def test_service_of_somebody(checkout):
    """A muster that was installed stays installed, and one that was served goes on being served."""
    checkout.run('sh', '-c', 'dpkg -i /root/muster/build/packages/*.deb')
    checkout.systemctl('start', 'muster.socket')
    quickstart(checkout)
    assert state_of(checkout, 'muster') == 'installed'
    assert checkout.unit('muster.socket').ActiveState == 'active'
