# SPDX-License-Identifier: MIT
"""An unmodified Node.js app, as a person runs it: deployed in /srv, started by its socket, looked at by journalctl and muster,
reloaded, broken, mended. All of it on one machine, whose app begins anew for each test."""

import http.client
import shutil

import pytest

import packages as packages_module
from app_machine import APPS, PORT, App, check_but
from client import Connection, Load, workers
from machine import wait_for

COMMAND = 'kind = "node"; command = [ "/usr/bin/node", "web.js" ]; '
SYNTAX_ERROR = 'const http = require("node:http"\n'
EXITS = 'console.error("no database today"); process.exit(3);\n'


@pytest.fixture
def web(app_machine, programs):
    web = App(app_machine, programs, 'web')
    web.reset()
    web.deploy(APPS / 'web.js')
    web.configure(COMMAND + 'environment = { NODE_ENV = "production"; };', 'soak = "100ms";')
    return web


def said_by_workers(web):
    """Not by the run of the service: journald cannot tell that of a process that is gone when it reads the message."""
    return web.machine.journal('SYSLOG_IDENTIFIER=web-1', 'SYSLOG_IDENTIFIER=web-2')


def test_first_connection(web):
    """It starts the app, which serves the port and the unix socket with two workers that know who they are, as a user of its
    own."""
    web.machine.systemctl('start', web.socket)
    assert web.unit.ActiveState == 'inactive'
    assert web.ask('/whoami')['version'] == 1
    by_port = workers(web.machine, address=PORT)
    assert workers(web.machine, address=web.unix) == by_port
    assert web.wait_ready() == {slot: pid for pid, slot in by_port.items()}
    answer = web.ask('/whoami')
    assert (answer['generation'], answer['instance'], answer['environment']) == (1, str(answer['slot'] - 1), 'production')
    assert answer['uid'] not in (0, 65534)


def test_journal(web):
    """What the app writes is the unit's, with its worker's pid and a name that tells the workers apart, beside what musterd
    says."""
    web.start()
    pids = web.wait_ready()
    spoken = set()
    wait_for(lambda: spoken.add(int(web.get('/say'))) or len(spoken) == 2, 'both have spoken', interval=0)
    for slot, pid in pids.items():
        for text in f'said by {pid}', f'complained by {pid}':
            entry = web.wait_said(text)[0]
            assert (entry['SYSLOG_IDENTIFIER'], entry['_PID'], entry['_SYSTEMD_UNIT']) == (f'web-{slot}', str(pid), web.name)
    (serving,) = web.entries('MASTER_READY')
    assert (serving['MESSAGE'], serving['SYSLOG_IDENTIFIER']) == ('Serving web with 2 workers.', 'musterd')
    assert web.said('The app listens on port 3000')
    text = web.machine.run('journalctl', '--no-pager', '-u', web.name).stdout
    assert f'web-1[{pids[1]}]: said by {pids[1]}' in text and 'musterd[' in text


def test_muster(web):
    """status, exits and send, of an app that knows only process.send() and process.on('message')."""
    web.start()
    pids = web.wait_ready()
    web.get('/status')
    speaker = wait_for(lambda: next((p for p in web.status()['processes'] if p['status']), None), 'the app has a status')
    assert speaker['status'] == 'said by the app'
    assert f'worker {speaker["slot"]}: said by the app' in web.unit.StatusText
    out = web.machine.run('muster', 'status', 'web').stdout
    assert out.startswith('web: running, generation 1') and str(pids[1]) in out and str(pids[2]) in out

    web.machine.run('muster', 'send', 'web', '{"flush": [1, "ä"]}')
    for pid in pids.values():
        assert web.wait_said('told {"flush":[1,"ä"]}', _PID=pid)
    web.machine.run('muster', 'send', 'web', '--worker=2', '"only you"')
    assert web.wait_said('told "only you"', _PID=pids[2]) and not web.said('told "only you"', _PID=pids[1])

    victim, _ = web.kill_one()
    record = web.wait_exit(victim)
    assert (record['slot'], record['cause'], record['signal']) == (1, 'crashed', 'SIGKILL')
    assert 'SIGKILL' in web.machine.run('muster', 'exits', 'web').stdout


def test_worker_killed(web):
    """SIGKILL under load: it is replaced, the journal says so, and nothing is lost but what it had begun."""
    web.start()
    before = web.unit
    with web.load(connections=4, fresh=4) as clients:
        clients.wait(500)
        victim, successor = web.kill_one()
        clients.wait(500)
    check_but(clients.stop(), 8)
    (ended,) = web.entries('EXIT_CRASHED')
    assert (ended['MUSTER_WORKER_PID'], ended['MUSTER_SIGNAL']) == (str(victim), '9')
    assert ended['MESSAGE'] == f'Worker 1 (pid {victim}) was killed by signal 9, SIGKILL.'
    assert web.entries('WORKER_READY', MUSTER_WORKER_PID=successor)
    assert (web.unit.MainPID, web.unit.NRestarts) == (before.MainPID, '0')


def test_reload(web):
    """systemctl reload under load brings the new code, and no request has failed: but on connections that are kept, as Node closes
    one that is idle without having told, be it for no more than a moment."""
    web.start()
    with web.load(connections=0, fresh=4) as clients, web.load(connections=4) as kept:
        clients.wait(200)
        web.write('web.js', (APPS / 'web.js').read_text().replace('VERSION = 1', 'VERSION = 2'))
        assert web.reloads()
        clients.wait(200)
        kept.wait(200)
    clients.check()
    check_but(kept.stop(), 4)
    wait_for(lambda: web.ask('/whoami')['version'] == 2, 'the new version answers')
    assert (web.status()['generation'], web.unit.NRestarts, web.unit.ReloadResult) == (2, '0', 'success')


def test_reload_of_broken_code(web):
    """It fails with the reason, and the old generation serves as if nothing had happened; mended, it is taken."""
    web.start()
    pids = web.wait_ready()
    with web.load(connections=2, fresh=2) as clients:
        clients.wait(100)
        web.write('web.js', SYNTAX_ERROR)
        assert not web.reloads()
        clients.wait(100)
        assert web.pids() == pids
    clients.check()
    (entry,) = web.entries('RELOAD_FAILED')
    assert 'exited with status 1' in entry['MESSAGE']
    assert any('SyntaxError: ' in e['MESSAGE'] for e in said_by_workers(web))
    assert 'reload failed: ' in web.unit.StatusText
    assert web.said('muster: web: ', SYSLOG_IDENTIFIER='muster')

    web.deploy(APPS / 'web.js')
    assert web.reloads()
    assert web.wait_ready()[1] not in pids.values()


def test_app_exits_at_once(web):
    """systemctl start fails and says why; the socket stays, and the mended app is started by itself and answers who waited."""
    web.write('web.js', EXITS)
    assert not web.starts()
    entries = [e['MESSAGE'] for e in web.machine.journal('-u', web.name)]
    assert 'The app cannot start.' in entries
    assert any('exited with status 3' in text for text in entries)
    assert any(e['MESSAGE'] == 'no database today' for e in said_by_workers(web))
    wait_for(lambda: 'exited with status 3' in web.machine.systemctl('status', web.name, check=False).stdout, 'status says why')
    assert web.machine.unit(web.socket).ActiveState == 'active'

    waiting = Connection(web.machine, address=PORT)
    waiting.request('GET', '/hello')
    web.deploy(APPS / 'web.js')
    assert waiting.getresponse().status == 200
    assert web.machine.unit(web.socket).ActiveState == 'active'


def test_port_taken(web):
    """A second port that somebody else has: the app gets Node's error, the start fails, and it is said whose fault it is."""
    web.machine.run('systemd-run', '--unit=other.service', 'python3', '-m', 'http.server', '--bind', '127.0.0.1', '9000')
    try:
        wait_for(lambda: ':9000' in web.machine.run('ss', '-Hlnt').stdout, 'somebody has the port')
        web.configure(COMMAND + 'environment = { PORT = 9000; };')
        assert not web.starts()
        entries = [e['MESSAGE'] for e in web.machine.journal('-u', web.name)]
        assert any('cannot listen on 127.0.0.1:9000: Address already in use' in text for text in entries)
        assert any('EADDRINUSE' in e['MESSAGE'] for e in said_by_workers(web))
    finally:
        web.machine.systemctl('stop', 'other.service')
    # Free again, it is bound by musterd, and connections to it are for all workers, too.
    web.machine.wait_unit(web.name, 'active')
    assert len(workers(web.machine, address=('127.0.0.1', 9000))) == 2
    assert web.said('for which no socket was passed: bound here')


def test_endless_loop(web):
    """A worker that turns in a loop is found without its help and replaced, while the others serve. Nothing is lost but what it had
    taken."""
    web.configure(COMMAND, 'watchdog = "1s";')
    web.start()
    before = web.wait_ready()
    hanging = Connection(web.machine, address=PORT)
    with web.load(connections=0, fresh=4) as clients:
        clients.wait(100)
        hanging.request('GET', '/loop')
        (hangs,) = wait_for(lambda: web.entries('WORKER_HANGS'), 'the loop is noticed')
        victim = int(hangs['MUSTER_WORKER_PID'])
        slot = next(slot for slot, pid in before.items() if pid == victim)
        record = web.wait_exit(victim)
        after = web.wait_ready()
        clients.wait(100)
    check_but(clients.stop(), 4)
    assert record['cause'] == 'watchdog' and after[slot] != victim
    assert [pid for pid in after.values() if pid in before.values()] == [pid for pid in before.values() if pid != victim]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        hanging.getresponse()
    assert web.unit.NRestarts == '0'


def test_stop_finishes(web):
    """systemctl stop waits for a request that is open, takes no other, and leaves the socket to start the app again."""
    web.start()
    client = web.machine.socket()
    client.settimeout(60)
    client.connect(PORT)
    client.sendall(b'POST /hold HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab')
    answer = client.makefile('rb')
    assert any(line == b'begun\n' for line in answer)
    before = web.unit
    web.machine.systemctl('stop', '--no-block', web.name)
    wait_for(lambda: web.unit.StatusText.startswith('Stopping'), 'musterd stops')
    client.sendall(b'cd')
    assert b'done\n' in answer.read()
    after = web.machine.wait_unit(web.name, 'inactive')
    assert (after.Result, after.ExecMainStatus) == ('success', '0')
    assert not any(web.is_there(pid) for pid in (int(before.MainPID), *web.machine.processes(web.name)))

    assert web.get('/hello', address=web.unix) == 'hello\n'
    assert web.unit.InvocationID != before.InvocationID


def test_spare(web):
    """With workers.spare one stands by with the app loaded, takes the place of a worker that dies, and is followed by another."""
    web.configure(COMMAND, 'spare = 1;')
    web.start()

    def standing_by():
        return next((p['pid'] for p in web.status()['processes'] if p['state'] == 'spare'), None)
    spare = wait_for(standing_by, 'a spare stands by')
    victim, successor = web.kill_one()
    assert successor == spare
    assert web.said(f'The spare worker (pid {spare}) becomes worker 1.')
    assert wait_for(standing_by, 'another spare stands by') != spare
    wait_for(lambda: web.ask('/whoami')['pid'] == spare, 'it answers', interval=0)


def test_sandbox(web):
    """What Node does is possible in the sandbox of the unit: native code made while it runs, threads, children, its own
    directories; what an app is not to do is not."""
    web.start()
    found = web.ask(f'/sandbox?port={PORT[1]}')
    assert 'lo' in found.pop('interfaces') and found.pop('cpus')
    assert (found.pop('own'), found.pop('etc')) == ('EROFS', 'EROFS')
    assert set(found.values()) == {'ok'}, found
    for pid in web.machine.processes(web.name):
        lines = web.machine.run('cat', f'/proc/{pid}/status').stdout.splitlines()
        status = dict(line.split(':\t', 1) for line in lines if ':\t' in line)
        assert (int(status['CapEff'], 16), status['NoNewPrivs'], status['Seccomp']) == (0, '1', '2')
        assert '0' not in status['Uid'].split()


def test_upgrade_and_removal(web, packages, tmp_path):
    """An upgrade under load restarts the app and refuses nobody; a removal ends it and keeps its configuration. (The last test: after it
    there is nothing to test.)"""
    web.machine.systemctl('start', web.socket)
    web.get('/hello')
    before = web.unit
    for package in packages.debs('muster', 'libmuster0'):
        shutil.copy(packages_module.with_higher_version(package, tmp_path), web.machine.path('/root'))
    with Load(web.machine, 2, path='/hello', address=PORT) as load:
        web.machine.run('sh', '-c', 'dpkg -i /root/*.deb')
    assert load.answered and not load.failures
    assert (web.unit.ActiveState, web.unit.MainPID == before.MainPID) == ('active', False)
    assert web.get('/hello') == 'hello\n'

    web.machine.run('dpkg', '--remove', 'muster')
    assert not web.machine.run('pgrep', '-a', 'muster|node', check=False).stdout
    assert web.machine.path('/etc/muster/web.conf').exists() and web.machine.path('/srv/web/web.js').exists()
