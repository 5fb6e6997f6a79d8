# SPDX-License-Identifier: MIT
"""The example of the package, set up as muster-recipes(7) says: an Express app on muster@web.service whose workers share their
sessions, by a Redis that is an agent. All of it in the template's sandbox, as a user that systemd has made up."""

import json
import pathlib
import shutil
import subprocess

import pytest

from app_machine import App
from machine import TOP, wait_for

EXAMPLE = '/usr/share/doc/muster/examples/sessions'
URL = 'http://127.0.0.1:8081/'


@pytest.fixture(scope='module')
def modules():
    """What npm install fetches."""
    done = subprocess.run([TOP / 'tests/node-packages'], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(done.stderr.strip())
    return pathlib.Path(done.stdout.strip()) / 'node_modules'


@pytest.fixture
def web(app_machine, programs, modules):
    web = App(app_machine, programs, 'web')
    web.reset()
    machine = web.machine
    for name in 'server.js', 'package.json':
        machine.run('cp', f'{EXAMPLE}/{name}', web.folder)
    machine.run('cp', f'{EXAMPLE}/web.conf', '/etc/muster/web.conf')
    with machine.path('/etc/muster/web.conf').open('a') as f:
        f.write('workers: { count = 2; soak = "100ms"; };\n')
    shutil.copytree(modules, machine.path(f'{web.folder}/node_modules'), symlinks=True)
    yield web
    machine.systemctl('stop', web.socket, web.name, check=False)
    machine.run('rm', '-rf', '/var/lib/private/muster/web', '/root/jar')


def status(web):
    return json.loads(web.machine.run('muster', '--json', 'status', 'web').stdout)


def redis(web):
    (agent,) = status(web)['agents']
    return agent


def info(web, section):
    """What it says of itself; nothing, if there is none."""
    return web.machine.run('redis-cli', '-s', '/run/muster/web/run/redis.sock', 'info', section, check=False).stdout


def is_written(web):
    """Whether it has handed all of its data to the kernel."""
    said = info(web, 'persistence')
    return 'aof_buffer_length:0\n' in said and 'aof_pending_bio_fsync:0\n' in said


def visit(web):
    """Who comes back with the cookie that it was given: how often it was there, and who has answered."""
    found = json.loads(web.machine.run('curl', '-sf', '-c', '/root/jar', '-b', '/root/jar', URL).stdout)
    return found['views'], found['worker']


def test_sessions(web):
    """Sessions are the app's and not a worker's; they outlive the Redis, a reload, and the run of the service."""
    machine = web.machine
    machine.systemctl('start', web.socket)
    views, seen = 0, set()
    while len(seen) < 2 and views < 100:
        count, worker = visit(web)
        views += 1
        assert count == views
        seen.add(worker)
    assert seen == {1, 2}

    agent = redis(web)
    assert (agent['state'], agent['status']) == ('ready', 'Ready to accept connections')
    groups = machine.proc(agent['pid'], 'cgroup').read_text()
    assert f'/{web.name}/agent-redis.' in groups
    assert 'Agent redis' in web.wait_said(f'(pid {agent["pid"]}) is ready')[0]['MESSAGE']

    wait_for(lambda: is_written(web), 'all is written')
    machine.kill(agent['pid'], 'KILL')
    wait_for(lambda: redis(web)['state'] == 'ready' and redis(web)['pid'] != agent['pid'], 'the next Redis')
    # both workers, and who asks: before a worker has noticed that the connection is gone it answers with an error
    wait_for(lambda: 'connected_clients:3\n' in info(web, 'clients'), 'both workers have it')
    views += 1
    assert visit(web)[0] == views

    agent = redis(web)
    assert web.reloads()
    assert redis(web)['pid'] == agent['pid']
    views += 1
    assert visit(web)[0] == views

    machine.systemctl('stop', web.name)
    assert web.unit.Result == 'success'
    views += 1
    assert visit(web)[0] == views
    assert redis(web)['pid'] != agent['pid']


def test_broken_agent(web):
    """A start without its agent fails, and systemctl start says so; clients wait until that is mended."""
    conf = web.machine.path('/etc/muster/web.conf')
    good = conf.read_text()
    conf.write_text(good.replace('"redis-server"', '"redis-servre"'))
    assert not web.starts()
    wait_for(lambda: web.said('cannot find "redis-servre" in PATH'), 'the journal has the reason')
    conf.write_text(good)
    assert visit(web)[0] == 1
