# SPDX-License-Identifier: MIT
"""Programs that know nothing of muster, from Debian's packages, run as muster-recipes(7) says, with the unit's sockets and in its
sandbox. All of it on one machine, whose app begins anew for each test."""

import dataclasses
import re

import pytest

from app_machine import APPS, PORT, App, check_but
from client import Connection
from machine import wait_for

BIG = 32 * 1024 * 1024
CLIENTS = 4


@dataclasses.dataclass
class Program:
    """@takes_all: the sockets that were passed, and not only one. @crossing: how many requests on kept connections may cross with
    the end of one that is idle, of which the program does not tell. @version: what becomes another one in the file @versioned."""

    files: tuple
    command: str
    more: str = ''
    workers: str = 'wait_ready = true;'
    takes_all: bool = True
    crossing: int = 0
    version: str = 'VERSION = 1'
    versioned: str = 'wsgi.py'


PROGRAMS = {
    'gunicorn': Program(('wsgi.py',), '"/usr/bin/gunicorn", "--preload", "--workers=1", "wsgi:application"'),
    'nginx': Program(('nginx.conf',),
                     '"/usr/sbin/nginx", "-e", "stderr", "-p", "/run/muster/api/run", "-c", "/srv/api/nginx.conf",'
                     '"-g", "daemon off; pid /run/muster/api/run/%{worker}.pid;"',
                     'environment = { NGINX = "%{fd:http};"; };', 'stop_signal = "SIGQUIT";', takes_all=False,
                     crossing=CLIENTS, version='return 200 1', versioned='nginx.conf'),
    'python': Program(('listen.py', 'wsgi.py'), '"/usr/bin/python3", "listen.py"'),
}


@pytest.fixture(params=PROGRAMS)
def program(request):
    return PROGRAMS[request.param]


@pytest.fixture
def api(app_machine, programs, program):
    api = App(app_machine, programs, 'api')
    api.reset()
    if not program.takes_all:
        api.open_port(and_path=False)
    for file in program.files:
        api.deploy(APPS / file)
    api.write('big', 'x' * BIG)
    api.configure(f'kind = "program"; command = [ {program.command} ]; {program.more}', f'soak = "100ms"; {program.workers}')
    return api


def answering(api, **options):
    """{slot: pid} of the two workers that answer: they or their only children."""
    ours = {pid: slot for slot, pid in api.wait_ready().items()}
    ours |= {child: slot for pid, slot in ours.items() for child in api.machine.children(pid)}
    found = {}
    wait_for(lambda: found.update({ours[pid]: pid} if (pid := int(api.get('/pid', **options))) in ours else {}) or len(found) == 2,
             'both workers answer', interval=0)
    return found


def test_serves(api, program):
    """The first connection starts it, both workers serve all the sockets that it takes, and what it writes is in the unit's
    journal by worker."""
    api.machine.systemctl('start', api.socket)
    assert api.unit.ActiveState == 'inactive'
    assert api.get('/') == 'hello\n'
    answering(api)
    if program.takes_all:
        answering(api, address=api.unix)
    by_worker = api.entries(SYSLOG_IDENTIFIER='api-1')
    assert by_worker and {e['_SYSTEMD_UNIT'] for e in by_worker} == {api.name}
    assert api.said('Serving api with 2 workers.')


def test_reload(api, program):
    """Under load it brings the new version and loses nothing; a version that cannot be loaded fails and changes nothing."""
    api.start()
    with api.load(connections=0, fresh=CLIENTS) as clients, api.load(connections=CLIENTS) as kept:
        clients.wait(100)
        text = (APPS / program.versioned).read_text()
        api.write(program.versioned, text.replace(program.version, program.version[:-1] + '2'))
        assert api.reloads()
        clients.wait(100)
        pids = api.wait_ready()
        api.write(program.versioned, 'this is not what it should be (\n')
        assert not api.reloads()
        clients.wait(100)
        kept.wait(100)
    clients.check()
    check_but(kept.stop(), program.crossing)
    wait_for(lambda: api.get('/version') == '2', 'the new version answers')
    assert api.pids() == pids and api.status()['generation'] == 2
    assert 'reload failed: ' in api.unit.StatusText and api.entries('RELOAD_FAILED')


def test_worker_killed(api):
    """Nothing is lost but what it had begun, it is replaced, and its children end with it."""
    api.start()
    children = {slot: set(api.machine.children(pid)) for slot, pid in api.wait_ready().items()}
    before = api.unit
    with api.load(connections=0, fresh=CLIENTS) as clients:
        clients.wait(100)
        victim, _ = api.kill_one()
        clients.wait(100)
    check_but(clients.stop(), CLIENTS)
    assert not any(api.is_there(pid) for pid in children[1]) and all(api.is_there(pid) for pid in children[2])
    record = api.wait_exit(victim)
    assert (record['slot'], record['cause']) == (1, 'crashed')
    assert (api.unit.MainPID, api.unit.NRestarts) == (before.MainPID, '0')


def test_stop_finishes(api):
    """systemctl stop waits for an answer that is being fetched, and the end is nobody's failure."""
    api.start()
    download = Connection(api.machine, address=PORT, receive_buffer=4096)
    download.request('GET', '/big')
    response = download.getresponse()
    before = api.unit
    api.machine.systemctl('stop', '--no-block', api.name)
    wait_for(lambda: api.unit.StatusText.startswith('Stopping'), 'musterd stops')
    assert len(response.read()) == BIG
    download.close()
    after = api.machine.wait_unit(api.name, 'inactive')
    assert (after.Result, after.ExecMainStatus, after.NRestarts) == ('success', '0', '0')
    assert not [e for e in api.machine.journal(f'_PID={before.MainPID}') if 'killing' in e['MESSAGE']]
    assert api.machine.unit(api.socket).ActiveState == 'active'
    assert api.get('/') == 'hello\n'


@pytest.mark.parametrize('program', ['python'], indirect=True)
def test_notify(api):
    """READY=1 and STATUS= of a program reach musterd and not systemd, in the sandbox; what musterd makes of them does."""
    api.start()
    assert {p['status'] for p in api.status()['processes']} == {'serves 2 sockets'}
    api.wait_status_line('2/2 workers ready, generation 1; worker 1: serves 2 sockets; worker 2: serves 2 sockets')
    of_systemd = api.environment(int(api.unit.MainPID))['NOTIFY_SOCKET']
    sockets = {api.environment(pid)['NOTIFY_SOCKET'] for pid in api.pids().values()}
    assert len(sockets) == 2 and of_systemd not in sockets
    for pid in api.machine.processes(api.name):
        status = api.machine.run('cat', f'/proc/{pid}/status').stdout
        for pattern in r'CapEff:\s*0+', r'NoNewPrivs:\s*1', r'Seccomp:\s*2':
            assert re.search(f'^{pattern}$', status, re.M), (pid, pattern)
        assert not re.search(r'^Uid:.*\b0\b', status, re.M)
