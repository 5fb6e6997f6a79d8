# SPDX-License-Identifier: MIT
"""An app of somebody's on a machine: an instance of the template, with a port besides its unix socket."""

import json
import pathlib
import shutil

from client import get
from lifecycle_machine import Service, set_drop_in
from machine import wait_for

APPS = pathlib.Path(__file__).parent / 'apps'
PORT = ('127.0.0.1', 8081)


class App(Service):
    address = PORT[1]

    def __init__(self, machine, programs, app):
        super().__init__(machine, programs)
        self.app = app
        self.name = f'muster@{app}.service'
        self.socket = f'muster@{app}.socket'
        self.control = f'muster-control@{app}.socket'
        self.folder = f'/srv/{app}'
        self.unix = f'/run/muster-sockets/{app}.sock'

    def reset(self):
        super().reset()
        shutil.rmtree(self.machine.path(self.folder), ignore_errors=True)
        self.machine.path(self.folder).mkdir(parents=True)
        self.open_port()

    def open_port(self, and_path=True):
        none = '' if and_path else 'ListenStream=\n'
        set_drop_in(self.machine, self.socket, 'port', f'[Socket]\n{none}ListenStream={":".join(map(str, PORT))}\n')

    def deploy(self, path):
        self.write(path.name, path.read_text())

    def write(self, name, text):
        """Becomes a file of the app's, at once and as a whole."""
        new = self.machine.path(f'{self.folder}/.{name}')
        new.write_text(text)
        new.rename(self.machine.path(f'{self.folder}/{name}'))

    def configure(self, app, workers='', more=''):
        self.machine.write(f'/etc/muster/{self.app}.conf',
                           f'app: {{ directory = "{self.folder}"; {app} }};\nworkers: {{ count = 2; {workers} }};\n{more}\n')

    def get(self, path, address=PORT):
        """The body."""
        status, body = get(self.machine, path, address=address)
        assert status == 200, (path, status, body)
        return body.decode()

    def ask(self, path, address=PORT):
        return json.loads(self.get(path, address))

    def starts(self, **options):
        """Whether systemctl start says so."""
        return self.machine.systemctl('start', self.name, check=False, **options).returncode == 0

    def reloads(self):
        return self.machine.systemctl('reload', self.name, check=False).returncode == 0

    def said(self, text, **fields):
        """The entries of this run of the service in which that stands."""
        return [e for e in self.entries(**fields) if text in e['MESSAGE']]

    def wait_said(self, text, **fields):
        return wait_for(lambda: self.said(text, **fields), f'the journal has {text!r}')

    def environment(self, pid):
        """That a process was started with."""
        words = self.machine.proc(pid, 'environ').read_text().split('\0')
        return dict(word.split('=', 1) for word in words if '=' in word)

    def kill_one(self):
        """SIGKILL to worker 1, and until its successor is ready; returns both pids."""
        victim = self.wait_ready()[1]
        self.machine.kill(victim, 'KILL')
        after = wait_for(lambda: (now := self.pids()).get(1) != victim and len(now) == 2 and now, 'another worker in the slot')
        return victim, after[1]


def check_but(account, n):
    """No more than @n requests, those that a killed worker had begun, have failed, and nobody was refused or left waiting."""
    failed = {kind: count for kind, count in account.failed.items() if count}
    assert set(failed) <= {'reset', 'closed'} and account.failures <= n, str(account)
