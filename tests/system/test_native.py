# SPDX-License-Identifier: MIT
"""Native workers on a real system: modules made with what libmuster-dev installs, and files, in the sandboxes of the units. All of it
on one machine, whose app begins anew for each test."""

import json
import re
import shutil
import subprocess

import pytest

from app_machine import APPS, PORT, App
from client import Connection, get
from lifecycle_machine import Service
from machine import build_tree, run_in_tree, wait_for

EXAMPLES = '/usr/share/doc/libmuster-dev/examples'
LOG = '/var/log/muster/api/access.log'
CLIENTS = 4


@pytest.fixture(scope='session')
def modules(suite, packages):
    """The folder of the compiled modules: the packaged examples, and those of the test."""
    directory = packages.directory / 'modules'
    directory.mkdir(exist_ok=True)
    script = f'''
        dpkg -i /packages/libmuster*.deb
        make() {{ source=$1 name=$2; shift 2; cc -shared -fPIC -Wall $source -o /modules/$name.so "$@"; }}
        flags=$(pkg-config --cflags muster)
        make {EXAMPLES}/hello.c hello $flags
        make {EXAMPLES}/json-api.c json-api $flags $(pkg-config --cflags --libs jansson)
        make {EXAMPLES}/page.c page $flags $(pkg-config --libs muster)
        make /apps/native.c native -D_GNU_SOURCE $flags
        make /apps/native.c native-2 -D_GNU_SOURCE -DVERSION=2 $flags
        make /apps/native.c other-abi -D_GNU_SOURCE -DOTHER_ABI=4711 $flags
        echo 'int nothing;' >/tmp/nothing.c
        make /tmp/nothing.c nothing
    '''
    status, output = run_in_tree(build_tree(suite), ['sh', '-ec', script],
                                 {packages.directory: '/packages', APPS: '/apps', directory: '/modules'})
    assert status == 0, output
    return directory


class NativeApp(App):
    def __init__(self, machine, programs, modules):
        super().__init__(machine, programs, 'api')
        self.modules = modules
        self.module = f'{self.folder}/app.so'

    def install(self, name):
        """That module takes the place of the app's, as a whole."""
        new = self.machine.path(f'{self.folder}/.app.so')
        shutil.copy(self.modules / f'{name}.so', new)
        new.chmod(0o755)
        new.rename(self.machine.path(self.module))

    def use(self, name, app='', workers='', more=''):
        self.install(name)
        self.configure(f'kind = "module"; module = "{self.module}"; {app}', f'soak = "100ms"; {workers}', more)

    def fetch(self, path, method='GET', body=None, **headers):
        """The answer with its headers, and its body."""
        connection = Connection(self.machine, address=PORT)
        try:
            connection.request(method, path, body, {name.replace('_', '-'): value for name, value in headers.items()})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()


@pytest.fixture
def api(app_machine, programs, modules):
    api = NativeApp(app_machine, programs, modules)
    api.reset()
    app_machine.run('rm', '-rf', '/var/log/private/muster/api')
    return api


# Modules

def test_first_request_starts_module(api):
    """The packaged example, compiled and configured as its comment says, is started by its first client; its connections and
    requests are counted."""
    api.use('hello')
    api.machine.systemctl('start', api.socket)
    assert api.unit.ActiveState == 'inactive'
    assert re.fullmatch(r'Hello, 127\.0\.0\.1: this is request 1 of this worker\.\n', api.get('/'))
    assert api.get('/', address=api.unix).startswith('Hello, unix: ')
    api.wait_ready()
    assert api.status()['requests'] == 2
    kept = Connection(api.machine, address=PORT)
    kept.get('/')
    api.wait_status_line('2/2 workers ready, 1 connections, generation 1')
    kept.close()


def test_body(api):
    """A body is collected and answered; one that is too large is refused."""
    api.use('json-api', more='http: { max_body = "1K"; };')
    api.start()
    response, body = api.fetch('/sum', 'POST', '[1, 2.5]')
    assert (response.status, json.loads(body)) == (200, {'sum': 3.5, 'count': 2})
    assert api.fetch('/sum', 'POST', '[1' + ', 1' * 1000 + ']')[0].status == 413
    assert api.fetch('/sum', 'POST', '{')[0].status == 400


def test_child_process(api):
    """A module starts programs in the sandbox, and sends on what they print."""
    api.use('page', r'environment = { PAGE_COMMAND = "for i in 1 2 3; do echo \"$1 $i\"; done"; };')
    api.start()
    assert api.get('/?line') == 'line 1\nline 2\nline 3\n'


def test_surroundings(api):
    """The configured environment and directory, and a thread for what blocks."""
    api.write('variables', 'FROM_FILE=file\nBOTH=file\n')
    api.use('native', f'environment_file = "{api.folder}/variables"; environment = {{ BOTH = "set"; SLOT = "%{{worker}}"; }};')
    api.start()
    assert api.get('/directory') == api.folder
    assert [api.get(f'/environment?{name}') for name in ('FROM_FILE', 'BOTH')] == ['file', 'set']
    assert api.get('/environment?SLOT') in '12'
    assert api.get('/environment?LOGS_DIRECTORY') == '/var/log/muster/api'
    assert api.get('/thread') == 'a thread'


def test_tight_sandbox(api):
    """A module runs in the unit of the app "default" as well, which lets no memory be written and executed."""
    default = Service(api.machine, api.programs)
    default.reset()
    try:
        api.install('native')
        configuration = api.machine.path('/etc/muster/default.conf')
        before = configuration.read_text()
        configuration.write_text(f'app: {{ kind = "module"; module = "{api.module}"; }}; workers: {{ count = 2; }};\n')
        default.start()
        assert get(api.machine, '/thread') == (200, b'a thread')
        assert get(api.machine, '/directory') == (200, b'/')
    finally:
        configuration.write_text(before)
        default.reset()


def test_crash_is_named(api):
    """A module that dies of a signal is named in the journal, with what it was doing, and in the record of the exit; the worker
    is replaced, and its siblings have not noticed."""
    api.use('native', workers='twin = false;')
    api.start()
    before = api.wait_ready()
    kept = Connection(api.machine, address=PORT)
    victim = int(kept.get('/pid')[1])
    kept.request('GET', '/crash')
    with pytest.raises(OSError):
        kept.getresponse()
    record = api.wait_exit(victim)
    assert record['cause'] == 'crashed' and record['signal'] in ('SEGV', 'SIGSEGV', 11), record
    said = api.wait_said('module native')
    assert any('SIGSEGV' in e['MESSAGE'] and api.module in e['MESSAGE'] and '/crash' in e['MESSAGE'] for e in said), said
    wait_for(lambda: victim not in (now := api.wait_ready()).values() and now, 'another worker in its slot')
    assert set(before.values()) - {victim} <= set(api.pids().values())
    assert api.get('/version') == '1'


def connect_to_one(api):
    """Two connections to one worker."""
    found = {}
    while True:
        connection = Connection(api.machine, address=PORT)
        pid = connection.get('/pid')[1]
        if pid in found:
            return found[pid], connection
        found[pid] = connection


def test_crash_is_taken_over(api):
    """Where there is a twin, a request that crashes each process that begins it is answered 500, and the worker's other connections
    go on; the journal tells of each crash."""
    api.use('native')
    api.start()
    before = api.wait_ready()
    kept, other = connect_to_one(api)
    kept.auto_open = False  # no second connection in place of one that was closed
    victim = int(kept.get('/pid')[1])
    (slot,) = (slot for slot, pid in api.serving().items() if pid == victim)
    assert other.get('/crash')[0] == 500
    record = api.wait_exit(victim)
    assert record['cause'] == 'crashed' and record['signal'] == 'SIGSEGV', record
    wait_for(lambda: len(api.said('SIGSEGV', SYSLOG_IDENTIFIER='musterd')) == 3, 'the journal tells of three crashes')
    said = api.said('SIGSEGV', SYSLOG_IDENTIFIER='musterd')
    assert all(api.module in e['MESSAGE'] and '/crash' in e['MESSAGE'] and 'taken over' in e['MESSAGE'] for e in said), said
    assert int(kept.get('/pid')[1]) == api.serving()[slot] != victim
    assert api.pids() == before


def test_new_version(api):
    """Under load a new version comes by a reload, and nothing is lost."""
    api.use('native')
    api.start()
    with api.load(connections=2, fresh=CLIENTS) as clients:
        clients.wait(100)
        api.install('native-2')
        assert api.reloads()
        clients.wait(100)
    clients.check()
    wait_for(lambda: api.get('/version') == '2', 'the new version answers')


BROKEN = {
    'nothing': 'muster_module',
    'other-abi': '4711',
    'refuses': 'Link has been severed',
    'text': 'is no ELF file',
    'missing': 'No such file or directory',
}


@pytest.mark.parametrize('broken', BROKEN)
def test_broken_module(api, broken):
    """One that cannot serve makes the reload fail, with a reason that names it, and the old workers go on; a good one is taken."""
    api.use('native')
    api.start()
    pids = api.wait_ready()
    if broken == 'refuses':
        api.write('refuse', '')
    elif broken == 'text':
        api.write('app.so', 'int main;\n')
    elif broken == 'missing':
        api.machine.path(api.module).unlink()
    else:
        api.install(broken)

    assert not api.reloads()
    line = api.unit.StatusText
    assert 'reload failed: ' in line and BROKEN[broken] in line, line
    failure, = api.entries('RELOAD_FAILED')
    assert api.module in failure['MESSAGE'] and BROKEN[broken] in failure['MESSAGE'], failure
    assert api.pids() == pids and api.get('/version') == '1'

    api.machine.path(f'{api.folder}/refuse').unlink(missing_ok=True)
    api.install('native-2')
    assert api.reloads()
    wait_for(lambda: api.get('/version') == '2', 'the new version answers')


def test_missing_module_at_start(api):
    """A first start fails truthfully, and --check says it before."""
    api.use('native')
    api.machine.path(api.module).unlink()
    check = api.machine.run('musterd', '--check', 'api', check=False)
    assert check.returncode == 2
    assert check.stdout.endswith(f'/etc/muster/api.conf:1: app.module: cannot open {api.module}: No such file or directory\n')
    assert not api.starts()
    assert any(f'cannot open {api.module}' in message for message in api.machine.messages(api.name))
    api.machine.systemctl('stop', api.name)


# Files

def test_files(api):
    """A compressed file in place of the file, ranges, a folder's listing, and a link that leads out."""
    text = 'some text\n' * 100
    api.write('text.txt', text)
    subprocess.run(['gzip', '-9k', api.machine.path(f'{api.folder}/text.txt')], check=True)
    api.machine.path(f'{api.folder}/passwd').symlink_to('/etc/passwd')
    api.configure('kind = "static";', more='static: { listing = true; cache_control = "max-age=60"; };')
    api.start()

    response, body = api.fetch('/text.txt')
    assert (response.status, body.decode(), response.getheader('Content-Encoding')) == (200, text, None)
    assert response.getheader('Cache-Control') == 'max-age=60' and 'Accept-Encoding' in response.getheader('Vary')
    curl = ['curl', '--silent', '--show-error', '--fail', f'http://127.0.0.1:{PORT[1]}/text.txt']
    assert api.machine.run(*curl, '--compressed').stdout == text
    response, body = api.fetch('/text.txt', Accept_Encoding='gzip')
    assert response.getheader('Content-Encoding') == 'gzip' and len(body) < len(text)

    assert api.machine.run(*curl, '--range', '5-8').stdout == 'text'
    response, body = api.fetch('/text.txt', Range='bytes=-5')
    assert (response.status, body, response.getheader('Content-Range')) == (206, b'text\n', 'bytes 995-999/1000')
    assert api.fetch('/text.txt', Range='bytes=1000-')[0].status == 416

    listing = api.get('/')
    assert 'text.txt' in listing
    assert api.fetch('/passwd')[0].status in (403, 404)


# The access log

COMMON = r'127\.0\.0\.1 - - \[[^]]+\] "GET /version HTTP/1\.1" 200 1'


def test_access_log_in_journal(api):
    """A line for each answer, under a name of its own."""
    api.use('native', more='http: { access_log = "journal"; };')
    api.start()
    api.get('/version')
    said = api.wait_said('"GET /version HTTP/1.1"', SYSLOG_IDENTIFIER='api-access')
    assert re.fullmatch(COMMON, said[0]['MESSAGE']), said
    assert {e['_SYSTEMD_UNIT'] for e in said} == {api.name}
    assert int(said[0]['_PID']) in api.serving().values()


def test_access_log_in_file(api):
    """In the directory of the unit, for nobody else to read; a file that was renamed is followed by a new one, and the end loses
    nothing."""
    api.use('native', more=f'http: {{ access_log = "{LOG}"; access_log_format = "json"; }};')
    api.start()
    log = api.machine.path(LOG)

    def requests(path):
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    for _ in range(10):
        api.get('/version')
    wait_for(lambda: len(requests(log)) == 10, 'ten lines are written')
    assert all('/version' in json.dumps(line) for line in requests(log))
    assert log.stat().st_mode & 0o007 == 0

    log.rename(log.with_suffix('.1'))
    api.get('/version')
    wait_for(lambda: api.get('/pid') and log.exists(), 'a new file is written', interval=0.2)
    api.get('/last-words')
    api.machine.systemctl('stop', api.name)
    assert any('/last-words' in json.dumps(line) for line in requests(log) + requests(log.with_suffix('.1')))
