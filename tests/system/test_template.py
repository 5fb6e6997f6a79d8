# SPDX-License-Identifier: MIT
"""Any other app: an instance of the template."""

import re

import pytest

from client import get, whoami, workers

SOCKET = '/run/muster-sockets/web.sock'
CONFIG = 'app: { kind = "static"; directory = "/srv/web"; whoami = true; };\n'


@pytest.fixture
def web(machine):
    machine.write('/etc/muster/web.conf', CONFIG)
    machine.write('/srv/web/index.html', 'the app web\n')
    return machine


def test_unix_socket(web):
    """An instance serves its folder on a unix socket, started by the first request."""
    web.systemctl('start', 'muster@web.socket')
    assert web.unit('muster@web.service').ActiveState == 'inactive'
    page = web.run('curl', '--silent', '--show-error', '--fail', '--unix-socket', SOCKET, 'http://web/').stdout
    assert page == 'the app web\n'
    assert whoami(web, address=SOCKET)['app'] == 'web'
    workers(web, address=SOCKET)


def test_tcp_by_drop_in(web):
    """A drop-in adds a TCP port; both are served."""
    web.write('/etc/systemd/system/muster@web.socket.d/port.conf', '[Socket]\nListenStream=8081\n')
    web.systemctl('daemon-reload')
    web.systemctl('start', 'muster@web.socket')
    assert get(web, address=('127.0.0.1', 8081)) == (200, b'the app web\n')
    assert get(web, address=SOCKET) == (200, b'the app web\n')


def test_beside_default(web):
    """Two apps are two services: stopping one leaves the other alone."""
    web.systemctl('start', 'muster.socket', 'muster@web.socket')
    assert whoami(web)['app'] == 'default'
    assert whoami(web, address=SOCKET)['app'] == 'web'
    web.systemctl('stop', 'muster@web.socket')
    web.wait_unit('muster@web.service', 'inactive')
    assert whoami(web)['app'] == 'default'


def test_stop_removes_socket_file(web):
    """A socket that was closed leaves no file that a proxy would take for a service that is down."""
    web.systemctl('start', 'muster@web.socket')
    assert web.live_path(SOCKET).is_socket()
    web.systemctl('stop', 'muster@web.socket')
    assert not web.live_path(SOCKET).exists()


def test_own_user(web):
    """A drop-in gives the app a user of its own, who reads what nobody else may."""
    web.run('useradd', '--system', 'web')
    web.run('chown', '-R', 'web:', '/srv/web')
    web.run('chmod', '-R', 'go=', '/srv/web')
    web.write('/etc/systemd/system/muster@web.service.d/user.conf', '[Service]\nDynamicUser=no\nUser=web\n')
    web.systemctl('daemon-reload')
    web.systemctl('start', 'muster@web.socket')
    assert get(web, address=SOCKET) == (200, b'the app web\n')
    uids = web.run('ps', '-o', 'user=', '-p', ','.join(map(str, web.processes('muster@web.service')))).stdout.split()
    assert set(uids) == {'web'}


def test_sandbox(web):
    """No instance runs as root or has a capability; the exposure is what the sandbox without JIT-breaking lines gives."""
    web.systemctl('start', 'muster@web.socket')
    whoami(web, address=SOCKET)
    for pid in web.processes('muster@web.service'):
        status = web.run('cat', f'/proc/{pid}/status').stdout
        assert re.search(r'^CapEff:\s*0+$', status, re.M)
        assert not re.search(r'^Uid:\s*0\b', status, re.M)
    text = web.run('systemd-analyze', '--no-pager', 'security', 'muster@web.service').stdout
    assert float(re.search(r'Overall exposure level for muster@web.service: ([0-9.]+)', text).group(1)) <= 2.0


def test_enabled(web):
    """An enabled instance listens after the next boot; here: is wanted by sockets.target."""
    web.systemctl('enable', 'muster@web.socket')
    assert 'muster@web.socket' in web.systemctl('list-dependencies', '--plain', 'sockets.target').stdout
