# SPDX-License-Identifier: MIT
"""The life of workers and of the service, as systemd shows it: reloads good and bad, hangs, limits, what a worker leaves
behind, the ends. All of it on one machine, whose service begins anew for each test."""

import json
import signal
import threading
import time

import pytest

from client import Connection, get, whoami
from lifecycle_machine import Service, kind, set_drop_in
from machine import Machine, wait_for
from packages import install

RESTART = 'restart: {{ limit = {}; window = "60s"; backoff_min = "10ms"; backoff_max = "{}"; }};'


@pytest.fixture(scope='module')
def machine(suite, packages):
    machine = Machine(suite)
    try:
        install(machine, packages)
        yield machine
    finally:
        machine.close()


@pytest.fixture
def service(machine, programs):
    service = Service(machine, programs)
    service.reset()
    service.configure()
    return service


#
# Reload
#
def test_reload(service):
    """systemctl reload returns when the new generation serves, and nobody else; no request has failed. What systemd,
    muster and the journal say agrees."""
    service.configure('soak = "400ms";')
    service.start()
    before = service.unit
    with service.load(connections=4, fresh=2) as clients:
        clients.wait(200)
        begin = time.monotonic()
        service.machine.systemctl('reload', 'muster')
        assert time.monotonic() - begin >= 0.4, 'it has waited for the soak'
        service.wait_generation(2)
        status = service.status()
        clients.wait(200)
    assert clients.check().answered >= 400

    assert (status['generation'], status['state']) == (2, 'running')
    assert status['workers'] == {'wanted': 2, 'ready': 2, 'failing': 0}
    assert {p['generation'] for p in status['processes'] if p['state'] != 'retiring'} == {2}
    unit = service.unit
    assert (unit.ActiveState, unit.MainPID, unit.NRestarts, unit.ReloadResult) == ('active', before.MainPID, '0', 'success')
    service.wait_status_line(r'2/2 workers ready, \d+ connections, generation 2')
    (entry,) = service.entries('RELOADED')
    assert (entry['MESSAGE'], entry['MUSTER_GENERATION']) == ('Generation 2 serves with 2 workers.', '2')
    assert not service.entries('RELOAD_FAILED')


def test_slow_reload(service):
    """TimeoutStartSec= bounds the command of a reload too; while the reload gets on, the master asks for more."""
    service.use_fixture('slow-ready=3000@generation=2')
    service.configure('soak = "500ms";')
    service.start()
    set_drop_in(service.machine, service.name, 'timeout', '[Service]\nTimeoutStartSec=6s\n')
    begin = time.monotonic()
    service.machine.systemctl('reload', 'muster')
    assert time.monotonic() - begin >= 6.5, 'two workers and the soak'
    assert (service.unit.ReloadResult, service.status()['generation']) == ('success', 2)


def invalid_file(service):
    service.machine.write('/etc/muster/default.conf', 'app: {\n  directry = "/srv";\n};\n')
    return '/etc/muster/default.conf:2: '


def missing_directory(service):
    service.configure(directory='/srv/missing')
    return '/srv/missing'


@pytest.mark.parametrize('damage', [invalid_file, missing_directory])
def test_bad_reload(service, damage):
    """It fails, the unit's journal says why, and nothing else has happened: the same workers serve, no request has
    failed."""
    service.start()
    before, pids = service.unit, service.pids()
    with service.load(connections=4, fresh=2) as clients:
        clients.wait(100)
        reason = damage(service)
        assert service.machine.systemctl('reload', 'muster', check=False).returncode == 1
        by_hand = service.machine.run('sh', '-c', 'muster reload default 2>&1 >/dev/null', check=False)
        clients.wait(100)
        assert service.pids() == pids
    clients.check()

    unit = service.unit
    assert (unit.ActiveState, unit.Result, unit.ReloadResult) == ('active', 'success', 'exit-code')
    assert (unit.MainPID, unit.NRestarts) == (before.MainPID, '0')
    assert by_hand.returncode == 1 and by_hand.stdout.startswith('muster: default: ') and reason in by_hand.stdout
    (said,) = service.entries(SYSLOG_IDENTIFIER='muster')
    assert said['MESSAGE'].startswith('muster: default: ') and reason in said['MESSAGE']
    assert said['_SYSTEMD_UNIT'] == 'muster.service'
    entries = service.entries('RELOAD_FAILED')
    assert len(entries) == 2 and all(reason in entry['MESSAGE'] for entry in entries)
    assert 'reload failed: ' in unit.StatusText and reason in unit.StatusText
    assert 'generation 1;' in unit.StatusText
    assert not service.entries('RELOADED')


def test_reload_after_a_bad_one(service):
    """The mended file is taken, and STATUS forgets the failure."""
    service.configure('soak = "0";')
    service.start()
    missing_directory(service)
    assert service.machine.systemctl('reload', 'muster', check=False).returncode == 1
    service.configure('soak = "0";')
    service.machine.systemctl('reload', 'muster')
    assert service.unit.ReloadResult == 'success'
    line = service.wait_status_line(r'2/2 workers ready, \d+ connections, generation (\d+)')
    assert int(line.group(1)) == service.status()['generation'] > 1
    service.wait_generation(int(line.group(1)))


#
# Hangs, limits
#
def test_watchdog(service):
    """A worker that is stopped is replaced first, then ended; the journal and its catalog say what to do. The service
    does not notice."""
    service.configure('watchdog = "1s"; twin = false;')
    service.start()
    before = service.unit
    victim = service.pids()[1]
    service.machine.kill(victim, 'STOP')

    record = service.wait_exit(victim)
    assert (record['cause'], record['slot']) == ('watchdog', 1)
    assert record['signal'] in ('SIGABRT', 'SIGKILL')
    assert service.wait_ready()[1] != victim
    unit = service.unit
    assert (unit.ActiveState, unit.MainPID, unit.NRestarts) == ('active', before.MainPID, '0')

    (hangs,) = service.entries('WORKER_HANGS', MUSTER_WORKER_PID=victim)
    (ended,) = service.entries('EXIT_WATCHDOG', MUSTER_WORKER_PID=victim)
    assert hangs['MUSTER_WORKER'] == ended['MUSTER_WORKER'] == '1'
    assert ended['MUSTER_CAUSE'] == 'watchdog'
    assert ended['MUSTER_SIGNAL'] == str(int(signal.Signals[record['signal']]))
    text = service.explained('EXIT_WATCHDOG')
    assert 'Subject: Worker 1 of default was killed because it hung' in text
    assert f'coredumpctl info {victim}' in text
    assert 'longer than that, raise workers.watchdog in muster.conf(5)' in service.explained('WORKER_HANGS')


def test_watchdog_takeover(service):
    """In place of one that has a twin, the twin serves: the worker is the same, and says so."""
    service.configure('watchdog = "1s";')
    service.start()
    pids, victim = service.pids(), service.serving()[1]
    service.machine.kill(victim, 'STOP')

    record = service.wait_exit(victim)
    assert (record['cause'], record['slot']) == ('watchdog', 1)
    (hangs,) = service.entries('WORKER_HANGS', MUSTER_WORKER_PID=victim)
    (ended,) = service.entries('TAKEN_OVER', MUSTER_WORKER_PID=victim)
    assert hangs['MESSAGE'].endswith('ending it; its twin takes over.') and ended['MESSAGE'].endswith('taken over.')
    assert service.pids() == pids and service.serving()[1] != victim
    assert whoami(service.machine)['pid'] in service.serving().values()
    assert service.status()['processes'][0]['takeovers'] == 1


def moment(entry):
    return int(entry['__MONOTONIC_TIMESTAMP'])


def test_memory_limit(service):
    """A worker above max_memory is replaced: the new one is ready before the old one goes."""
    service.configure('max_memory = "64M"; jitter = 0;')
    service.use_fixture()
    service.start()
    victim = service.pids()[2]
    service.tell_worker(victim, '/leak?mib=100')

    record = service.wait_exit(victim)
    assert (record['cause'], record['code'], record['status']) == ('max-memory', 'exited', 0)
    assert record['peak_memory_bytes'] > 100 * 1024 * 1024
    (leaves,) = service.entries('WORKER_LEAVES')
    (ended,) = service.entries('EXIT_LIMIT')
    assert leaves['MUSTER_WORKER_PID'] == ended['MUSTER_WORKER_PID'] == str(victim)
    assert ended['MUSTER_CAUSE'] == 'max-memory'
    successor = service.wait_ready()[2]
    (ready,) = service.entries('WORKER_READY', MUSTER_WORKER_PID=successor)
    assert moment(leaves) < moment(ready) < moment(ended)
    assert service.unit.NRestarts == '0'


def test_out_of_memory(service):
    """At MemoryMax= the kernel takes the worker, not the service, and the master names the cause."""
    controllers = service.machine.live_path('/sys/fs/cgroup/cgroup.controllers').read_text().split()
    if 'memory' not in controllers:
        pytest.skip(f'the machine has no memory controller (it has {controllers})')
    service.use_fixture()
    set_drop_in(service.machine, service.name, 'memory', '[Service]\nMemoryMax=80M\nMemorySwapMax=0\n')
    service.start()
    service.wait_ready()
    leak = Connection(service.machine)
    leak.request('GET', '/leak?mib=200')

    ended = wait_for(lambda: service.entries('EXIT_OUT_OF_MEMORY'), 'the kernel kills a worker')
    assert ended[0]['MUSTER_CAUSE'] == 'out-of-memory'
    service.wait_ready()
    unit = service.unit
    assert (unit.ActiveState, unit.NRestarts) == ('active', '0')


#
# What belongs to a worker
#
def test_groups(service):
    """Each worker has a control group of its own; the master is in another one. Dead workers' groups are removed."""
    service.start()
    pids = service.wait_ready()
    assert service.group_of(service.unit.MainPID) == 'supervisor'
    groups = {slot: service.group_of(pid) for slot, pid in pids.items()}
    assert {slot: group.partition('.')[0] for slot, group in groups.items()} == {1: 'worker-1', 2: 'worker-2'}
    assert service.groups() == {'supervisor', *groups.values()}

    service.machine.kill(pids[1], 'KILL')
    after = wait_for(lambda: (now := service.wait_ready())[1] != pids[1] and now, 'another worker in the slot')
    new = service.group_of(after[1])
    assert new.startswith('worker-1.') and new != groups[1]
    wait_for(lambda: service.groups() == {'supervisor', groups[2], new}, 'the group of the dead worker is removed')


@pytest.mark.parametrize('how', ['daemon', 'child', 'hidden'])
def test_nothing_is_left_of_a_worker(service, how):
    """What a worker has started ends with it, be it a daemon or in a session of its own and without environment."""
    service.use_fixture()
    service.start()
    pids = service.wait_ready()
    started = int(service.tell_worker(pids[1], f'/fork?{how}'))
    assert service.group_of(started) == service.group_of(pids[1])
    if how == 'hidden':
        assert not service.machine.run('cat', f'/proc/{started}/environ').stdout.strip('\0')
    others = int(service.tell_worker(pids[2], f'/fork?{how}'))

    service.machine.kill(pids[1], 'KILL')
    wait_for(lambda: not service.is_there(started), f'the {how} is gone')
    after = wait_for(lambda: (now := service.wait_ready())[1] != pids[1] and now, 'another worker in the slot')
    assert after[2] == pids[2]
    assert service.is_there(others), 'that of another worker stays'


def test_stubborn_worker(service):
    """systemctl stop ends in time, whatever a worker does: it is killed by the master, not by systemd, with all that it
    has started, and that is said."""
    service.configure('stop_timeout = "2s";')
    service.use_fixture()
    service.start()
    pids = service.wait_ready()
    service.tell_worker(pids[1], '/stubborn')
    started = int(service.tell_worker(pids[1], '/fork'))
    unit = service.unit

    begin = time.monotonic()
    service.machine.systemctl('stop', 'muster.service')
    assert 2 <= time.monotonic() - begin < 30, 'systemd would kill it after 40'
    assert not any(service.is_there(pid) for pid in (*pids.values(), started, unit.MainPID))
    assert not service.machine.live_path(f'/sys/fs/cgroup{unit.ControlGroup}').exists()
    after = service.unit
    assert (after.ActiveState, after.Result, after.ExecMainStatus) == ('inactive', 'success', '0')

    # Not by the run of the service: journald cannot tell that of a process that is gone when it reads the message.
    entries = service.machine.journal(f'_PID={unit.MainPID}', f'MUSTER_WORKER_PID={pids[1]}')
    messages = [entry['MESSAGE'] for entry in entries]
    assert f'Worker 1 (pid {pids[1]}) did not finish within 2s, killing it.' in messages
    assert any(entry.get('MUSTER_CAUSE') == 'stop-timeout' for entry in entries)
    by_systemd = service.machine.journal(f'INVOCATION_ID={unit.InvocationID}')
    assert by_systemd and not [e['MESSAGE'] for e in by_systemd if 'SIGKILL' in e['MESSAGE'] or 'timed out' in e['MESSAGE']]


def test_master_killed(service):
    """No orphan is left, not even a daemon that a worker had started; the service is back, and who came meanwhile has
    waited and is answered."""
    service.use_fixture()
    service.start()
    pids = service.wait_ready()
    started = int(service.tell_worker(pids[1], '/fork?hidden'))
    # With the workers stopped, connections stay in the queue of the socket.
    for pid in pids.values():
        service.machine.stop_at_rest(pid)
    waiting = [Connection(service.machine) for _ in range(10)]
    for connection in waiting:
        connection.request('GET', '/whoami')
    before = service.unit

    service.machine.kill(before.MainPID, 'KILL')
    for connection in waiting:
        response = connection.getresponse()
        assert response.status == 200 and json.loads(response.read())['pid'] not in pids.values()
    after = service.machine.wait_unit('muster.service', 'active')
    assert (after.NRestarts, after.MainPID == before.MainPID) == ('1', False)
    assert not any(service.is_there(pid) for pid in (*pids.values(), started))
    assert service.machine.unit('muster.socket').ActiveState == 'active'


#
# Slots that fail
#
def test_failing_slot(service):
    """It is said in STATUS, by muster and in the journal; the others serve, the socket stays. A reload after mending
    brings it back at once."""
    service.configure('soak = "0";', RESTART.format(2, '60s'))
    service.use_fixture()
    service.start()
    before, pids = service.unit, service.wait_ready()
    service.set_mode('exit=3@worker=2')
    service.machine.kill(pids[2], 'KILL')

    service.wait_status_line(r'1/2 workers ready, \d+ connections, generation 1; 1 failing; .*')
    slot = next(slot for slot in service.status()['slots'] if slot['slot'] == 2)
    assert slot['state'] == 'failing' and slot['retry_in_usec'] > 30_000_000
    (entry,) = service.entries('SLOT_FAILING')
    assert entry['MUSTER_WORKER'] == '2' and int(entry['PRIORITY']) <= 3
    assert 'After mending the app, "systemctl reload" tries it at once.' in service.explained('SLOT_FAILING')
    assert {json.loads(get(service.machine, '/whoami')[1])['worker'] for _ in range(5)} == {1}
    assert service.machine.systemctl('reload', 'muster', check=False).returncode == 1, 'not mended yet'
    assert service.machine.unit('muster.socket').ActiveState == 'active'

    service.set_mode('')
    service.machine.systemctl('reload', 'muster')
    service.wait_status_line(r'2/2 workers ready, \d+ connections, generation \d+')
    unit = service.unit
    assert (unit.ActiveState, unit.MainPID, unit.NRestarts) == ('active', before.MainPID, '0')
    socket = service.machine.unit('muster.socket')
    assert (socket.ActiveState, socket.Result) == ('active', 'success')


def test_all_slots_fail(service):
    """Clients wait and are not refused; a reload after mending serves them."""
    service.configure('soak = "0";', RESTART.format(1, '60s'))
    service.use_fixture()
    service.start()
    before, pids = service.unit, service.wait_ready()
    service.set_mode('exit=3')
    for pid in pids.values():
        service.machine.kill(pid, 'KILL')
    service.wait_status_line(r'0/2 workers ready, \d+ connections, generation 1; 2 failing; .*')

    answers = []
    clients = [threading.Thread(target=lambda: answers.append(get(service.machine, '/'))) for _ in range(5)]
    for client in clients:
        client.start()
    wait_for(lambda: service.machine.run('ss', '-Hltn', 'sport = :8080').stdout.split()[1] == '5', 'the clients wait')
    assert service.machine.unit('muster.socket').ActiveState == 'active'
    service.set_mode('')
    service.machine.systemctl('reload', 'muster')
    for client in clients:
        client.join()
    assert answers == [(200, b'hello\n')] * 5
    assert (service.unit.MainPID, service.unit.NRestarts) == (before.MainPID, '0')


#
# systemd's protocol for workers
#
SHELL_WORKER = """#!/bin/sh
# The notification is made by a process of the shell's that is gone soon after.
systemd-notify --ready --status="said in the shell of worker $MUSTER_WORKER"
trap 'exit 0' TERM
while :; do sleep 1000 & wait; done
"""


def test_systemd_notify(service):
    """systemd-notify of a shell script makes its worker ready and sets its status, in the sandbox of the unit."""
    service.use_fixture(worker=SHELL_WORKER)
    service.start()
    said = 'worker 1: said in the shell of worker 1; worker 2: said in the shell of worker 2'
    service.wait_status_line(rf'2/2 workers ready, 0 connections, generation 1; {said}')
    status = service.status()
    assert {p['slot']: p['status'] for p in status['processes']} == \
        {n: f'said in the shell of worker {n}' for n in (1, 2)}
    assert not service.entries('NOTIFY_REFUSED')
    service.machine.systemctl('stop', 'muster.service')
    assert service.unit.Result == 'success'


#
# Leaving when idle
#
def test_idle_exit(service):
    """Without clients the service ends, with success; a look does not start it, the next connection does."""
    service.configure(more='idle_exit = "500ms";')
    service.machine.systemctl('start', 'muster.socket')
    connection = Connection(service.machine)
    assert connection.get('/hello') == (200, b'hello\n')
    first = service.machine.wait_unit('muster.service', 'active')
    connection.close()

    unit = service.machine.wait_unit('muster.service', 'inactive')
    assert (unit.Result, unit.NRestarts, unit.ExecMainStatus) == ('success', '0', '0')
    (entry,) = service.machine.journal(f'_PID={first.MainPID}', kind('IDLE'))
    assert entry['MESSAGE'] == 'No connection for 500ms: ending, until the next one starts the service again.'
    done = service.machine.run('muster', 'status', check=False)
    assert (done.returncode, done.stdout) == (1, 'default: stopped\n')
    assert service.unit.ActiveState == 'inactive'
    assert service.machine.unit('muster.socket').ActiveState == 'active'

    assert get(service.machine, '/hello') == (200, b'hello\n')
    assert service.unit.InvocationID != first.InvocationID
