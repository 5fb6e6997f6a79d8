# SPDX-License-Identifier: MIT
"""The service as a person uses it: started by its socket, looked at by systemctl and journalctl, stopped."""

import re

import pytest

from client import Connection, get, processes, whoami, workers
from machine import TOP, wait_for

BIG = 48 * 1024 * 1024


@pytest.fixture
def n_workers(machine):
    return int(machine.run('nproc').stdout)


def test_first_request_starts_service(machine):
    """systemctl start muster.socket starts no service; the first request does, and is answered."""
    machine.systemctl('start', 'muster.socket')
    assert machine.unit('muster.socket').ActiveState == 'active'
    assert machine.unit('muster.service').ActiveState == 'inactive'

    page = machine.run('curl', '--silent', '--show-error', '--fail', 'http://127.0.0.1:8080/').stdout
    assert '<html' in page
    machine.wait_unit('muster.service', 'active')


def test_ipv6(served):
    """The port is there for IPv6 too."""
    served.run('curl', '--silent', '--show-error', '--fail', 'http://[::1]:8080/')


def test_all_workers_answer(served, n_workers):
    """There is one worker for each CPU, and over many connections each of them answers. Each has a twin, and no other process is
    there."""
    found = workers(served, n_workers)
    assert sorted(found.values()) == list(range(1, n_workers + 1))
    master = int(served.unit('muster.service').MainPID)
    in_unit, children = served.processes('muster.service'), served.children(master)

    known = processes(served)  # starts the process that answers it
    assert found == {p['worker_pid']: slot for slot, p in known.items()}
    assert children == sorted(p['pid'] for p in known.values())
    for p in known.values():
        assert served.children(p['pid']) == sorted([p['worker_pid'], p['twin_pid']])
    assert in_unit == sorted([master, *(p[name] for p in known.values() for name in ('pid', 'worker_pid', 'twin_pid'))])


def test_status_line(served, n_workers):
    """systemctl status says how many workers are ready, how many connections are open, and which generation it is."""
    connections = [Connection(served) for _ in range(3)]
    for connection in connections:
        connection.get('/whoami')

    line = rf'Status: "{n_workers}/{n_workers} workers ready, 3 connections, generation 1"'
    wait_for(lambda: re.search(line, served.systemctl('status', 'muster.service').stdout), line)


def test_journal_fields(served, n_workers):
    """What master and workers log can be searched by app, worker, generation and message, and names its sender."""
    pids = workers(served, n_workers)
    master = int(served.unit('muster.service').MainPID)
    entries = [e for e in served.journal('-u', 'muster.service') if e.get('MUSTER_APP') == 'default']

    assert entries
    for entry in entries:
        assert int(entry['_PID']) != master or re.fullmatch('[0-9a-f]{32}', entry['MESSAGE_ID']), entry
        assert entry['MUSTER_GENERATION'] == '1', entry
        assert entry['CODE_FILE'] and entry['CODE_LINE'].isdigit() and entry['CODE_FUNC'], entry
        assert entry['_SYSTEMD_UNIT'] == 'muster.service', entry
        assert int(entry['_PID']) == master or int(entry['_PID']) in pids, entry

    ready = {int(e['MUSTER_WORKER']): int(e['MUSTER_WORKER_PID']) for e in entries if 'MUSTER_WORKER_PID' in e}
    assert ready == {slot: p['pid'] for slot, p in processes(served).items()}
    assert served.journal('MUSTER_APP=default', 'MUSTER_WORKER=1')


def test_worker_streams(served, n_workers):
    """The stderr of each worker is a stream to the journal of its own."""
    pids = served.processes('muster.service')
    streams = {served.run('readlink', f'/proc/{pid}/fd/2').stdout.strip() for pid in pids}
    assert len(streams) == n_workers + 1
    assert all(stream.startswith('socket:') for stream in streams)


def test_catalog(served):
    """journalctl -x explains the messages."""
    get(served)
    served.run('journalctl', '--sync')
    text = served.run('journalctl', '--no-pager', '--catalog', '-u', 'muster.service').stdout
    assert 'Subject: The app default is served' in text
    assert re.search(r'Subject: Worker 1 of default is ready', text)


def test_catalog_is_whole(served):
    """Every message that the programs can send has its text in the catalog of the machine."""
    header = (TOP / 'src/basic/message-id.h').read_text()
    ids = re.findall(r'#define MESSAGE_ID_\w+\s+"([0-9a-f]{32})"', header)
    assert ids
    for message_id in ids:
        assert 'Defined-By: muster' in served.run('journalctl', '--dump-catalog', message_id).stdout


def test_sandbox_of_worker(served, n_workers):
    """A worker has no privileges, a user that systemd made up, and knows what it is and nothing of systemd's words to
    the master."""
    for pid, slot in workers(served, n_workers).items():
        status = dict(line.split(':', 1) for line in served.run('cat', f'/proc/{pid}/status').stdout.splitlines())
        for capabilities in 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb':
            assert int(status[capabilities], 16) == 0, capabilities
        assert status['NoNewPrivs'].strip() == '1'
        assert status['Seccomp'].strip() == '2'
        uid = int(status['Uid'].split()[0])
        assert 61184 <= uid <= 65519, 'the range of DynamicUser='

        variables = served.run('cat', f'/proc/{pid}/environ').stdout.split('\0')
        environment = dict(v.split('=', 1) for v in variables if '=' in v)
        assert environment['MUSTER_APP'] == 'default'
        assert environment['MUSTER_WORKER'] == str(slot)
        assert environment['MUSTER_GENERATION'] == '1'
        assert environment['LISTEN_FDS'] == '1'
        assert environment['LISTEN_FDNAMES'] == 'http'
        assert environment['NOTIFY_SOCKET'].startswith('/run/muster/default/run/'), 'the master\'s, not systemd\'s'
        assert environment['WATCHDOG_USEC'] == '10000000'


def test_descriptors_of_worker(served, n_workers):
    """A worker has the socket that systemd opened, its streams, the inboxes of the slots, what its keeper knows its children by, and
    what it made itself; nothing else of the master."""
    listeners = served.run('ss', '--no-header', '--listening', '--tcp', '--extended').stdout
    inode = re.search(r':8080 .*\bino:(\d+)', listeners).group(1)
    master = served.unit('muster.service').MainPID
    masters = served.run('sh', '-c', f'for f in /proc/{master}/fd/*; do echo "${{f##*/}} $(readlink $f)"; done').stdout

    for pid, slot in workers(served, n_workers).items():
        keeper = processes(served)[slot]['pid']
        lines = served.run('sh', '-c', f'for f in /proc/{pid}/fd/*; do echo "${{f##*/}} $(readlink $f)"; done').stdout
        files = {int(n): target for n, target in (line.split(' ', 1) for line in lines.splitlines())}
        environment = served.run('cat', f'/proc/{pid}/environ').stdout.split('\0')
        first, n_slots = next((map(int, v.split('=')[1].split(':')) for v in environment if v.startswith('MUSTER_INBOX_FDS=')), (0, 0))
        inboxes = range(first, first + 2 * n_slots)
        assert n_slots == (n_workers if n_workers > 1 else 0)
        assert files[0] == '/dev/null'
        assert files[1] == files[2] and files[1].startswith('socket:')
        assert files[3] == f'socket:[{inode}]'
        assert list(files.values()).count(f'socket:[{inode}]') == 1
        for n, target in files.items():
            if n < 4 or n in inboxes:
                continue
            assert not target.startswith('socket:') or target not in masters, f'{n}: {target} is the master\'s'
            of_keeper = target in (f'/proc/{keeper}/task/{keeper}/children', f'/proc/{keeper}/oom_score_adj')
            assert of_keeper or not target.startswith(('/etc', '/proc')), f'{n}: {target}'
        assert len(files) < 40, files


def test_exposure(served):
    """systemd-analyze security: at most 1.5 for the default app."""
    text = served.run('systemd-analyze', '--no-pager', 'security', 'muster.service').stdout
    level = float(re.search(r'Overall exposure level for muster.service: ([0-9.]+)', text).group(1))
    assert level <= 1.5, text


def test_units_verify(machine):
    """systemd has nothing to say against the units."""
    done = machine.run('systemd-analyze', 'verify', '--man=no', 'muster.socket', 'muster.service', 'muster-control.socket',
                       'muster@web.socket', 'muster@web.service', 'muster-control@web.socket')
    assert 'muster' not in done.stdout, done.stdout


def test_stop_finishes_request(served):
    """systemctl stop waits for the request in flight, which gets every byte; the socket stays."""
    with open(served.path('/usr/share/muster/welcome/big'), 'wb') as f:
        f.truncate(BIG)
    connection = Connection(served, timeout=60, receive_buffer=64 * 1024)
    connection.request('GET', '/big')
    response = connection.getresponse()
    assert response.read(100_000) == bytes(100_000)

    stop = served.start('systemctl', 'stop', 'muster.service')
    served.wait_unit('muster.service', 'deactivating')
    assert stop.poll() is None
    assert 100_000 + len(response.read()) == BIG
    assert stop.wait(30) == 0
    unit = served.unit('muster.service')
    assert (unit.ActiveState, unit.Result, unit.ExecMainStatus) == ('inactive', 'success', '0')
    assert served.unit('muster.socket').ActiveState == 'active'


def test_stop_ends_idle_connections(served):
    """A connection that waits for its next request does not hold up the stop."""
    connection = Connection(served)
    connection.get('/whoami')
    served.systemctl('stop', 'muster.service', timeout=15)
    assert connection.sock.recv(1) == b''


def test_request_while_stopped(served):
    """A request while the service is stopped is answered by the next start."""
    before = whoami(served)['pid']
    served.systemctl('stop', 'muster.service')
    assert served.unit('muster.service').ActiveState == 'inactive'
    assert whoami(served)['pid'] != before
    served.wait_unit('muster.service', 'active')


def test_stopping_socket_stops_service(served):
    """Without its socket the service has nothing to do."""
    served.systemctl('stop', 'muster.socket')
    served.wait_unit('muster.service', 'inactive')
    with pytest.raises(ConnectionRefusedError):
        get(served)


def test_starting_service_starts_socket(machine):
    """The service has its socket, however it is started."""
    machine.systemctl('start', 'muster.service')
    assert machine.unit('muster.socket').ActiveState == 'active'
    assert get(machine)[0] == 200


def test_many_restarts(served):
    """Restarts in quick succession run into no limit."""
    for _ in range(12):
        served.systemctl('restart', 'muster.service')
        assert get(served)[0] == 200
    assert served.unit('muster.socket').ActiveState == 'active'


def test_many_activations(served):
    """A service that is stopped and started by its socket again and again runs into no limit either."""
    for _ in range(12):
        served.systemctl('stop', 'muster.service')
        assert get(served)[0] == 200
    assert served.unit('muster.socket').ActiveState == 'active'


def read_or_nothing(path):
    try:
        return path.read_text()
    except OSError:
        return ''


def test_reason_while_journald_is_slow(machine):
    """A start that fails says why under its unit, however late journald reads it: it is waited for."""
    machine.write('/etc/systemd/system/wrong.service', '[Service]\nExecStart=/usr/bin/musterd wrong\n')
    machine.write('/etc/muster/wrong.conf', 'workers: { count = 0; };\n')
    machine.systemctl('daemon-reload')
    journald = machine.unit('systemd-journald').MainPID
    machine.kill(journald, 'STOP')
    try:
        machine.systemctl('start', '--no-block', 'wrong')

        def waits():
            unit = machine.unit('wrong')
            return unit.ActiveState == 'failed' or 'poll' in read_or_nothing(machine.proc(unit.MainPID, 'wchan'))
        wait_for(waits, 'musterd has said why')
    finally:
        machine.kill(journald, 'CONT')
    machine.wait_unit('wrong', 'failed')
    assert [message for message in machine.messages('wrong') if 'workers.count' in message]


FORKING_UNIT = """[Service]
Type=forking
ExecStart=/usr/bin/musterd --detach forked
"""


def test_type_forking(machine):
    """musterd --detach is what Type=forking expects: the start succeeds when the service answers, else it fails with the reason."""
    machine.write('/etc/systemd/system/forked.service', FORKING_UNIT)
    machine.write('/etc/muster/forked.conf', 'listen: ( { address = "127.0.0.1:8099"; } );\n')
    machine.systemctl('daemon-reload')

    machine.systemctl('start', 'forked')
    machine.run('curl', '--silent', '--show-error', '--fail', 'http://127.0.0.1:8099/')
    master = int(machine.unit('forked').MainPID)
    assert machine.proc(master, 'comm').read_text() == 'musterd\n'
    assert machine.run('ps', '-o', 'ppid=,sid=,tty=', '-p', str(master)).stdout.split() == ['1', str(master), '?']
    machine.systemctl('stop', 'forked')
    assert machine.unit('forked').Result == 'success'

    machine.write('/etc/muster/forked.conf', 'listen: ( { address = "127.0.0.1:8099"; } );\nworkers: { count = 0; };\n')
    assert machine.systemctl('start', 'forked', check=False).returncode != 0
    assert machine.unit('forked').ExecMainStatus == '2' or machine.unit('forked').Result == 'exit-code'
    assert [message for message in machine.messages('forked') if 'workers.count' in message]
