# SPDX-License-Identifier: MIT
"""What the tests of a service's life need on a machine: the fixture worker of the integration tests in place of
muster-worker, its strict load client, and the ways to ask how the service is."""

import json
import re
import shutil
import subprocess
import sys

from client import Connection, whoami
from machine import TOP, wait_for

INTEGRATION = TOP / 'tests/integration'
sys.path.append(str(INTEGRATION))  # behind this folder, whose modules come first
import load  # noqa: E402

LIBEXEC = '/usr/libexec/muster'
LIFECYCLE = '/usr/local/libexec/lifecycle'
SITE = '/srv/site'
HELLO = 'hello\n'


def compile_programs(folder):
    """Static, so that they run on any machine."""
    for program, sources in {'lifecycle_worker': ['lifecycle_worker.c', 'lifecycle_deeds.c'],
                             'load_client': ['load_client.c']}.items():
        command = ['cc', '-std=gnu11', '-D_GNU_SOURCE', '-O1', '-static', '-pthread', '-o', str(folder / program)]
        subprocess.run([*command, *(str(INTEGRATION / source) for source in sources)], check=True)


def kind(name):
    """What selects messages of that kind from the journal."""
    header = (TOP / 'src/basic/message-id.h').read_text()
    return 'MESSAGE_ID=' + re.search(rf'#define MESSAGE_ID_{name}\s+"([0-9a-f]{{32}})"', header).group(1)


def set_drop_in(machine, unit, name, text):
    path = machine.live_path(f'/run/systemd/system/{unit}.d')
    path.mkdir(parents=True, exist_ok=True)
    (path / f'{name}.conf').write_text(text)
    machine.systemctl('daemon-reload')


class Service:
    """The app "default" of a machine."""

    app = 'default'
    name = 'muster.service'
    socket = 'muster.socket'
    control = 'muster-control.socket'
    address = 8080

    def __init__(self, machine, programs):
        self.machine = machine
        self.programs = programs

    def reset(self):
        """As if nothing had been done to the machine."""
        self.machine.systemctl('stop', self.socket, self.name)
        for unit in self.name, self.socket, self.control:
            shutil.rmtree(self.machine.live_path(f'/run/systemd/system/{unit}.d'), ignore_errors=True)
        self.machine.systemctl('daemon-reload')
        self.machine.systemctl('reset-failed')
        self.machine.write(f'{SITE}/hello', HELLO)

    def configure(self, workers='', more='', directory=SITE):
        app = f'kind = "static"; directory = "{directory}"; whoami = true;'
        self.machine.write(f'/etc/muster/{self.app}.conf', f'app: {{ {app} }};\nworkers: {{ count = 2; {workers} }};\n{more}\n')

    def start(self):
        self.machine.systemctl('start', self.socket, self.name)

    def use_fixture(self, mode='', worker=None):
        """The workers are the fixture's, or @worker, the text of a script."""
        folder = self.machine.path(LIFECYCLE)
        folder.mkdir(parents=True, exist_ok=True)
        for program in self.machine.path(LIBEXEC).iterdir():
            if program.name != 'muster-worker' and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(f'{LIBEXEC}/{program.name}')
        new = folder / 'muster-worker.new'
        new.write_bytes(worker.encode() if worker else (self.programs / 'lifecycle_worker').read_bytes())
        new.chmod(0o755)
        new.rename(folder / 'muster-worker')
        self.set_mode(mode)
        set_drop_in(self.machine, self.name, 'fixture', f'[Service]\nEnvironment=MUSTER_LIBEXECDIR={LIFECYCLE}\n'
                    f'Environment=LIFECYCLE_MODE_FILE={LIFECYCLE}/mode\n')

    def set_mode(self, mode):
        new = self.machine.path(f'{LIFECYCLE}/mode.new')
        new.write_text(mode)
        new.rename(self.machine.path(f'{LIFECYCLE}/mode'))

    def tell_worker(self, pid, path):
        """What that fixture worker answers."""
        def tell():
            others = []
            try:
                for _ in range(100):
                    connection = Connection(self.machine)
                    others.append(connection)
                    if json.loads(connection.get('/whoami')[1])['pid'] == pid:
                        return connection.get(path)
            finally:
                for connection in others:
                    connection.close()
        status, body = wait_for(tell, f'worker {pid} accepts a connection')
        assert status == 200, (path, body)
        return body.decode().strip()

    def load(self, **options):
        """Constant load from outside of the machine: only the network is the machine's."""
        command = ['nsenter', '-t', self.machine.leader, '-n', self.programs / 'load_client']
        return load.Load(self.address, command=command, target='/hello', body=HELLO, limit=15.0, **options)

    # How it is

    @property
    def unit(self):
        return self.machine.unit(self.name)

    def status(self):
        return json.loads(self.machine.run('muster', '--json', 'status', self.app).stdout)

    def exits(self):
        return json.loads(self.machine.run('muster', '--json', 'exits', self.app).stdout)['exits']

    def wait_exit(self, pid):
        """The record of that worker's end."""
        return wait_for(lambda: next((e for e in self.exits() if e['pid'] == pid), None), f'{pid} has ended')

    def pids(self):
        """{slot: pid} of the workers that serve."""
        return {p['slot']: p['pid'] for p in self.status()['processes'] if p['state'] == 'ready'}

    def serving(self):
        """{slot: pid} of those of their processes that answer: of a worker with a twin it is a child of the worker."""
        return {p['slot']: p['worker_pid'] or p['pid'] for p in self.status()['processes'] if p['state'] == 'ready'}

    def wait_ready(self, n=2):
        return wait_for(lambda: len(pids := self.pids()) == n and pids, f'{n} workers are ready')

    def wait_generation(self, n):
        """Until that one answers: a worker that was told to go may still have accepted the next connection."""
        wait_for(lambda: whoami(self.machine)['generation'] == n, f'generation {n} answers')

    def wait_status_line(self, pattern):
        return wait_for(lambda: re.fullmatch(pattern, self.unit.StatusText), f'the status line {pattern!r}')

    def entries(self, name=None, **fields):
        """The journal of this run of the service, or one kind of messages of it."""
        matches = [f'_SYSTEMD_INVOCATION_ID={self.unit.InvocationID}']
        if name:
            matches.append(kind(name))
        return self.machine.journal(*matches, *(f'{key}={value}' for key, value in fields.items()))

    def explained(self, name):
        """What journalctl -x says of it, in one line."""
        self.machine.run('journalctl', '--sync')
        text = self.machine.run('journalctl', '--no-pager', '--catalog', kind(name),
                                f'_SYSTEMD_INVOCATION_ID={self.unit.InvocationID}').stdout
        return ' '.join(re.sub(r'^\W\W ?', '', line, flags=re.M) for line in text.splitlines())

    def groups(self):
        """The names of the control groups below the service's."""
        base = self.machine.live_path(f'/sys/fs/cgroup{self.unit.ControlGroup}')
        return {path.name for path in base.iterdir() if path.is_dir()}

    def group_of(self, pid):
        """The group of a process, below the service's."""
        text = self.machine.proc(pid, 'cgroup').read_text()
        line = next(line for line in text.splitlines() if line.startswith('0::'))
        return line.partition(f'/{self.name}/')[2]

    def state_of(self, pid):
        """As ps shows it: R, S, T …; None: there is no such process."""
        try:
            return self.machine.proc(pid, 'stat').read_text().rpartition(')')[2].split()[0]
        except OSError:
            return None

    def is_there(self, pid):
        """A zombie is not."""
        return self.state_of(pid) not in (None, 'Z')
