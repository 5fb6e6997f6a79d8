# SPDX-License-Identifier: MIT
"""The packages: what installation, upgrade, removal and purge do, and do not do."""

import shutil

import packages as packages_module
from client import Load, get, whoami
from machine import build_tree, run_in_tree

SOCKET = '/run/muster-sockets/web.sock'
UNITS = ['muster.service', 'muster.socket', 'muster@web.service', 'muster@web.socket']

# What every change of packages leaves, whichever the package.
OF_THE_SYSTEM = ('/var/lib/dpkg/', '/var/log/', '/var/cache/', '/var/lib/systemd/catalog/', '/etc/ld.so.cache', '/root',
                 '/tmp/', '/var/tmp/', '/var/lib/rpm/', '/run/log', '/run/systemd', '/run/dbus', '/run/lock')
OF_SYSTEMD = ('/var/lib/private', '/var/lib/systemd/', '/var/lib/systemd', '/run/credentials', '/run/motd.d')


def files(machine):
    """All files of the machine but those that the system keeps for itself."""
    listing = machine.run('find', '/', '/run', '-xdev', '-print').stdout.splitlines()
    return {path for path in listing if not path.startswith(OF_THE_SYSTEM + OF_SYSTEMD)}


def test_lintian(suite, packages):
    """lintian finds neither errors nor warnings."""
    status, output = run_in_tree(
        build_tree(suite),
        ['sh', '-c', 'lintian --allow-root --fail-on error,warning --display-info --tag-display-limit 0 /packages/*.changes'],
        {packages.directory: '/packages'})
    assert status == 0, output
    assert not [line for line in output.splitlines() if line.startswith(('E:', 'W:'))], output


def test_installation_starts_nothing(machine):
    """After the installation nothing is enabled, nothing runs and nobody listens."""
    for unit in 'muster.service', 'muster.socket':
        assert machine.unit(unit).ActiveState == 'inactive'
        assert machine.systemctl('is-enabled', unit, check=False).stdout.strip() in ('disabled', 'static')
    assert ':8080' not in machine.run('ss', '-Hlnt').stdout


def test_dependencies(bare_machine, packages):
    """The package needs nothing but what it says, and its commands run."""
    shutil.copy(packages.debs('muster')[0], bare_machine.path('/root/muster.deb'))
    bare_machine.run('dpkg', '-i', '/root/muster.deb')
    assert bare_machine.run('musterd', '--version').stdout.startswith('musterd ')
    assert bare_machine.run('musterd', '--check', 'default').returncode == 0


def test_development_package(suite, packages):
    """A program is compiled, linked and run with what libmuster-dev installs."""
    program = '#include <muster/process.h>\\nint main(void) { return muster_child_unref(0) != 0; }\\n'
    status, output = run_in_tree(
        build_tree(suite),
        ['sh', '-ec', f'dpkg -i /packages/libmuster*.deb; cd /tmp; printf "{program}" > a.c;'
                      'cc -std=c99 -Wall -Wextra -Werror a.c $(pkg-config --cflags --libs muster) -o a; ./a'],
        {packages.directory: '/packages'})
    assert status == 0, output


def test_upgrade(machine, packages, tmp_path):
    """An upgrade under load: the services are restarted, instances too, the sockets are not touched, nobody is refused."""
    machine.write('/etc/muster/web.conf', 'app: { kind = "static"; directory = "/usr/share/muster/welcome"; whoami = true; };\n')
    machine.systemctl('enable', '--now', 'muster.socket', 'muster@web.socket')
    whoami(machine), whoami(machine, address=SOCKET)
    before = {name: machine.unit(name) for name in UNITS}
    for package in packages.debs('muster', 'libmuster0'):
        shutil.copy(packages_module.with_higher_version(package, tmp_path), machine.path('/root'))

    with Load(machine, 2) as tcp, Load(machine, 1, address=SOCKET) as unix:
        machine.run('sh', '-c', 'dpkg -i /root/*.deb')
    assert not tcp.failures and not unix.failures
    assert tcp.answered and unix.answered

    assert '+upgrade1' in machine.run('dpkg-query', '-W', 'muster').stdout
    for name in UNITS:
        now = machine.unit(name)
        assert now.ActiveState == 'active', name
        if name.endswith('.socket'):
            assert now.InvocationID == before[name].InvocationID, name
            assert now.ActiveEnterTimestampMonotonic == before[name].ActiveEnterTimestampMonotonic, name
        else:
            assert now.MainPID != before[name].MainPID, name
            assert now.NRestarts == '0', name
    assert get(machine)[0] == get(machine, address=SOCKET)[0] == 200


def test_upgrade_of_stopped_service(machine, packages, tmp_path):
    """An upgrade starts nothing that did not run."""
    machine.systemctl('start', 'muster.socket')
    for package in packages.debs('muster', 'libmuster0'):
        shutil.copy(packages_module.with_higher_version(package, tmp_path), machine.path('/root'))
    machine.run('sh', '-c', 'dpkg -i /root/*.deb')
    assert machine.unit('muster.socket').ActiveState == 'active'
    assert machine.unit('muster.service').ActiveState == 'inactive'
    assert machine.unit('muster@web.socket').ActiveState == 'inactive'


def test_removal_keeps_configuration(machine):
    """A removal stops everything, instances too, and keeps the configuration."""
    machine.write('/etc/muster/web.conf', 'app: { kind = "static"; directory = "/usr/share/muster/welcome"; };\n')
    machine.systemctl('start', 'muster.socket', 'muster@web.socket')
    assert get(machine)[0] == get(machine, address=SOCKET)[0] == 200
    machine.run('dpkg', '--remove', 'muster')
    assert not machine.run('pgrep', '-a', 'muster', check=False).stdout
    assert 'muster' not in machine.systemctl('list-units', '--all', '--plain', '--no-legend').stdout
    assert machine.path('/etc/muster/default.conf').exists() and machine.path('/etc/muster/web.conf').exists()


def test_purge_leaves_nothing(bare_machine, packages):
    """Installed, enabled, used, failed, and purged: the machine is as it was before."""
    machine = bare_machine
    before = files(machine)
    for package in packages.debs('muster', 'libmuster0'):
        shutil.copy(package, machine.path('/root'))
    machine.run('sh', '-c', 'dpkg -i /root/*.deb && rm /root/*.deb')

    machine.write('/etc/muster/web.conf', 'app: { kind = "static"; directory = "/usr/share/muster/welcome"; };\n')
    machine.write('/etc/muster/bad.conf', 'app: { kind = "bad"; };\n')
    machine.systemctl('enable', '--now', 'muster.socket', 'muster@web.socket', 'muster@bad.socket')
    assert get(machine)[0] == get(machine, address=SOCKET)[0] == 200
    machine.systemctl('start', 'muster@bad.service', check=False)
    assert machine.path('/var/lib/private/muster/default').is_dir()
    assert machine.path('/var/log/private/muster/default').is_dir()

    machine.run('dpkg', '--purge', 'muster', 'libmuster0')
    assert not machine.run('pgrep', '-a', 'muster', check=False).stdout
    assert ':8080' not in machine.run('ss', '-Hlnt').stdout
    assert 'muster' not in machine.systemctl('list-units', '--all', '--plain', '--no-legend').stdout
    assert 'muster' not in machine.systemctl('list-unit-files', '--no-legend').stdout
    assert files(machine) - before == set()
    named = machine.run('find', '/', '/run', '-xdev', '-path', '/proc', '-prune', '-o', '-name', '*muster*', '-print').stdout
    assert named == ''
    assert 'muster' not in machine.run('journalctl', '--dump-catalog').stdout
