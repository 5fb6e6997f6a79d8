# SPDX-License-Identifier: MIT
"""The control socket on a real systemd: what starts it, whom it lets in, and what a reload tells."""

import json

import pytest

from client import whoami
from machine import wait_for

CONFIG = 'app: {{ kind = "static"; directory = "/usr/share/muster/welcome"; whoami = true; }};\nworkers: {{ count = {}; }};\n'
CONTROL = '/run/muster/web/control'


@pytest.fixture
def web(machine):
    """The app web, whose sockets are open and that does not run."""
    machine.write('/etc/muster/web.conf', CONFIG.format(2))
    machine.systemctl('start', 'muster@web.socket')
    return machine


def test_default(served):
    """The app's socket brings the control socket along, and both are handed over."""
    assert served.unit('muster-control.socket').ActiveState == 'active'
    out = served.run('muster', 'status').stdout
    assert out.startswith('default: running, generation 1, for ')
    status = json.loads(served.run('muster', '--json', 'status').stdout)
    gone_or_going = admins(served)  # before the others are asked for: it ends when nobody asks it any more
    assert {p['pid'] for p in status['processes']} == set(served.children(served.unit('muster.service').MainPID)) - gone_or_going


def admins(machine):
    return {int(pid) for pid in machine.run('pgrep', '-x', 'muster-admin', check=False).stdout.split()}


def test_stopped_app_stays_stopped(web):
    """To look at an app does not start it; a command says that it does not run."""
    done = web.run('muster', 'status', 'web', check=False)
    assert (done.returncode, done.stdout) == (1, 'web: stopped\n')
    done = web.run('muster', 'reload', 'web', check=False)
    assert (done.returncode, done.stdout) == (1, 'muster: web is not running (its next connection starts it)\n')
    assert web.unit('muster@web.service').ActiveState == 'inactive'
    web.systemctl('stop', 'muster@web.socket')
    done = web.run('muster', 'exits', 'web', check=False)
    assert (done.returncode, done.stdout) == (1, 'muster: web is not running ("systemctl start muster@web.socket" lets it be started)\n')
    done = web.run('muster', 'status', 'gone', check=False)
    assert (done.returncode, done.stdout) == (1, 'muster: there is no app "gone": no /etc/muster/gone.conf\n')


def test_failed_app(web):
    """An app that cannot start: its state, and where the reason is."""
    web.write('/etc/systemd/system/muster@web.service.d/once.conf', '[Service]\nRestart=no\n')
    web.systemctl('daemon-reload')
    web.write('/etc/muster/web.conf', 'app: { kind = "bad"; };\n')
    web.systemctl('start', 'muster@web.service', check=False)
    done = web.run('muster', 'status', 'web', check=False)
    assert (done.returncode, done.stdout) == (1, 'web: failed\n')
    done = web.run('muster', 'reload', 'web', check=False)
    assert (done.returncode, done.stdout) == (1, 'muster: web has failed: "systemctl status muster@web.service" says why\n')


def test_other_client_starts_it(web):
    """A connection to the control socket by any other means starts the app, as one to the app would, and is answered."""
    done = web.run('curl', '--silent', '--show-error', '--fail', '--unix-socket', CONTROL, 'http://x/v1/status')
    assert json.loads(done.stdout)['app'] == 'web'
    web.wait_unit('muster@web.service', 'active')


def test_reload(web):
    """systemctl reload waits, and fails with the reason in the journal when the new configuration is bad; nothing else changes."""
    web.systemctl('start', 'muster@web.service')
    before = web.unit('muster@web.service')
    web.systemctl('reload', 'muster@web.service')
    assert json.loads(web.run('muster', '--json', 'status', 'web').stdout)['generation'] == 2
    assert any('web: generation 2 serves with 2 workers' in m for m in web.messages('muster@web.service'))

    web.write('/etc/muster/web.conf', CONFIG.format(0))
    assert web.systemctl('reload', 'muster@web.service', check=False).returncode == 1
    after = web.unit('muster@web.service')
    assert (after.ActiveState, after.Result, after.NRestarts, after.MainPID) == ('active', 'success', '0', before.MainPID)
    assert after.ReloadResult == 'exit-code'
    assert any('muster: web: ' in m and 'workers.count: found 0' in m for m in web.messages('muster@web.service'))
    # A worker of the first one that was told to go may still have accepted the next connection.
    wait_for(lambda: whoami(web, address='/run/muster-sockets/web.sock')['generation'] == 2, 'generation 2 answers')


def test_socket_outlives_service(web):
    """The file of the control socket is there before, between and after the runs of the service; it goes with the app's socket."""
    control = web.live_path(CONTROL)
    assert control.is_socket()
    for _ in range(2):
        web.systemctl('start', 'muster@web.service')
        assert web.live_path('/run/muster/web/run').is_dir()
        web.systemctl('stop', 'muster@web.service')
        assert control.is_socket() and not web.live_path('/run/muster/web/run').exists()
    assert web.run('muster', 'status', 'web', check=False).stdout == 'web: stopped\n'
    web.systemctl('stop', 'muster@web.socket')
    assert web.unit('muster-control@web.socket').ActiveState == 'inactive'
    assert not control.exists()


def test_group(web):
    """Root alone commands the app, until a group is let in."""
    web.run('useradd', '--user-group', 'deploy')
    web.systemctl('start', 'muster@web.service')
    as_deploy = ('setpriv', '--reuid=deploy', '--regid=deploy', '--clear-groups')
    done = web.run(*as_deploy, 'muster', 'reload', 'web', check=False)
    assert done.returncode == 1 and done.stdout.startswith(f'muster: no permission to use {CONTROL}: it is for its owner alone')
    web.write('/etc/systemd/system/muster-control@web.socket.d/group.conf', '[Socket]\nSocketGroup=deploy\n')
    web.systemctl('daemon-reload')
    web.systemctl('stop', 'muster@web.service')
    web.systemctl('restart', 'muster-control@web.socket')
    web.systemctl('start', 'muster@web.service')
    assert web.run(*as_deploy, 'muster', 'reload', 'web').stdout == 'web: generation 2 serves with 2 workers\n'
    done = web.run('setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', 'muster', 'reload', 'web', check=False)
    assert done.stdout == f'muster: no permission to use {CONTROL}: it is for the group "deploy"\n'
