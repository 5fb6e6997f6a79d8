# SPDX-License-Identifier: MIT
"""libmuster on a real system: programs made with what libmuster-dev installs, and run where only libmuster0 is."""

import re
import shutil

import pytest

from machine import TOP, build_tree, run_in_tree, wait_for

EXAMPLES = '/usr/share/doc/libmuster-dev/examples'


@pytest.fixture(scope='session')
def programs(suite, packages):
    """The example, and the program of these tests."""
    directory = packages.directory / 'programs'
    directory.mkdir(exist_ok=True)
    status, output = run_in_tree(
        build_tree(suite),
        ['sh', '-ec', f'dpkg -i /packages/libmuster*.deb;'
                      f'for source in {EXAMPLES}/cluster.c /tests/spawn.c; do'
                      '  cc -Wall -Wextra -Werror -Wno-unused-parameter $source'
                      '     $(pkg-config --cflags --libs muster) -o /programs/$(basename $source .c);'
                      'done'],
        {packages.directory: '/packages', TOP / 'tests/system': '/tests', directory: '/programs'})
    assert status == 0, output
    return directory


@pytest.fixture
def library(machine, programs):
    for program in 'cluster', 'spawn':
        shutil.copy(programs / program, machine.path('/usr/bin'))
    return machine


def test_journal_identifier(library):
    """What a child prints is in the journal, under the identifier that its parent chose and its own pid."""
    pid = library.run('spawn', 'journal', 'a-child').stdout.strip()
    entries = library.journal('--identifier=a-child')
    assert [entry['MESSAGE'] for entry in entries[:2]] == ['from stdout', 'from stderr']
    assert [entry['PRIORITY'] for entry in entries[:2]] == ['6', '4']
    assert re.fullmatch(r'\d+:\d+', entries[2]['MESSAGE'])
    assert {entry['_PID'] for entry in entries} == {pid}


def test_detached(library):
    """A detached child outlives its parent, is adopted by PID 1, has a session of its own, and holds nothing."""
    pid = library.run('spawn', 'detached').stdout.strip()
    ps = library.run('ps', '-o', 'ppid=,sid=,tty=,args=', '-p', pid).stdout.split()
    assert ps == ['1', pid, '?', 'sleep', 'infinity']
    assert library.run('readlink', f'/proc/{pid}/cwd').stdout.strip() == '/'
    for fd in range(3):
        assert library.run('readlink', f'/proc/{pid}/fd/{fd}').stdout.strip() == '/dev/null'
    library.kill(pid, 'KILL')


def test_cluster_example(library):
    """As a unit: it serves, replaces a worker that asks to go, and stops in order."""
    library.run('systemd-run', '--unit=example', '--property=KillMode=mixed', 'cluster', '8081')
    wait_for(lambda: any('is ready' in message for message in library.messages('example')), 'a worker is ready')

    def worker_pid(path):
        output = library.run('curl', '--silent', '--show-error', f'http://127.0.0.1:8081{path}').stdout
        return re.fullmatch(r'worker \d+, pid (\d+)\n', output).group(1)

    worker_pid('/')
    failed = worker_pid('/fail')
    ended = f'(pid {failed}) ended: status 0'
    wait_for(lambda: any(ended in message for message in library.messages('example')), ended)
    assert worker_pid('/') != failed

    library.systemctl('stop', 'example')
    messages = library.messages('example')
    n = int(library.run('nproc').stdout)
    assert sum('ended: status 0' in message for message in messages) == n + 1, messages
    assert not [message for message in messages if 'Failed' in message], messages
