# SPDX-License-Identifier: MIT
"""Machines for the tests: a Debian with its own systemd, in a container that boots in a second.

A tree is made once by mmdebstrap and kept in the cache folder; a machine is an overlay over it, so that each test has a
machine of its own that nothing was done to. What is mounted is so in a mount namespace of this process alone, and what
is started dies with it: a run that is killed leaves nothing behind.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache') / 'muster-tests'

# What a machine has on it: what the package depends on, and what the tests use.
RUN_PACKAGES = ['systemd', 'systemd-sysv', 'dbus', 'iproute2', 'procps', 'curl', 'rpm', 'libjansson4', 'liblmdb0']
SUITES = {
    'bookworm': RUN_PACKAGES + ['libconfig9'],
    'trixie': RUN_PACKAGES + ['libconfig11'],
}

# The apps of other people that the tests run.
APP_PACKAGES = ['nodejs', 'python3', 'gunicorn', 'nginx-light', 'redis-server']

# The system calls by which a process waits for events: poll, ppoll, and those of epoll.
WAITING = {'7', '271', '232', '281', '441'}

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def wait_for(condition, what, deadline=30.0, interval=0.05):
    """Asks until the answer is true, and returns it."""
    end = time.monotonic() + deadline
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f'not within {deadline:g} s: {what}')
        time.sleep(interval)


def cannot_run():
    """Why no machine can be started here, or None."""
    if os.geteuid() != 0:
        return 'only root can boot a container'
    for program in 'systemd-nspawn', 'mmdebstrap', 'nsenter':
        if not shutil.which(program):
            return f'{program} is not installed'
    if libc.unshare(CLONE_NEWNS) < 0:
        return f'cannot mount here: {os.strerror(ctypes.get_errno())}'
    done = subprocess.run(['mount', '--make-rprivate', '/'], capture_output=True, text=True)
    if done.returncode != 0:  # in a chroot, say, whose root is no mount point
        return f'cannot mount here: {done.stderr.splitlines()[0]}'
    return None


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


#
# Trees
#
@contextlib.contextmanager
def locked(path):
    with open(path, 'w') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def make_tree(kind, suite, mmdebstrap_arguments, key):
    """The cached tree for KEY; made now when there is none, in place of that of an older key."""
    CACHE.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256('\n'.join([suite, *key]).encode()).hexdigest()[:12]
    tree = CACHE / f'{kind}-{suite}-{digest}'

    with locked(CACHE / f'{kind}-{suite}.lock'):
        if tree.exists():
            return tree
        for old in CACHE.glob(f'{kind}-{suite}-*'):
            shutil.rmtree(old)

        new = CACHE / f'new-{kind}-{suite}'
        shutil.rmtree(new, ignore_errors=True)
        command = ['mmdebstrap', '--quiet', *mmdebstrap_arguments, suite, str(new)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f'{command} failed:\n{done.stderr[-4000:]}'
        new.rename(tree)
    return tree


def run_tree(suite):
    packages = SUITES[suite]
    return make_tree('run', suite, ['--variant=minbase', '--include=' + ','.join(packages)], packages)


def app_tree(suite):
    """One of its own: the other one has nothing that the package does not ask for."""
    packages = SUITES[suite] + APP_PACKAGES
    hook = '--customize-hook=chroot "$1" systemctl disable nginx.service redis-server.service'
    return make_tree('app', suite, ['--variant=minbase', '--include=' + ','.join(packages), hook], packages)


def build_tree(suite):
    """A tree with what packaging/debian/control asks for, installed by the apt inside of it."""
    control = TOP / 'packaging/debian/control'
    relations = control.read_text().split('Build-Depends:')[1].split('\nStandards-Version')[0]
    hooks = [
        '--customize-hook=mkdir -p "$1/tmp/deps/debian"',
        f'--customize-hook=copy-in {control} /tmp/deps/debian',
        '--customize-hook=chroot "$1" apt-get -qq -y --no-install-recommends build-dep /tmp/deps',
        '--customize-hook=chroot "$1" apt-get -qq -y --no-install-recommends install rpm lintian',
        '--customize-hook=rm -r "$1/tmp/deps"',
    ]
    return make_tree('build', suite, ['--variant=buildd', *hooks], [relations])


class Overlay:
    """A copy of a tree that is written to in memory."""

    count = 0

    def __init__(self, tree):
        Overlay.count += 1
        self.name = f'muster-test-{os.getpid()}-{Overlay.count}'
        self.directory = pathlib.Path(tempfile.gettempdir()) / self.name
        self.directory.mkdir(mode=0o700)
        self.root = self.directory / 'root'
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=0755', 'tmpfs', self.directory], check=True)
        for name in 'root', 'upper', 'work':
            (self.directory / name).mkdir()
        options = f'lowerdir={tree},upperdir={self.directory}/upper,workdir={self.directory}/work'
        subprocess.run(['mount', '-t', 'overlay', '-o', options, 'overlay', self.root], check=True)

    def close(self):
        subprocess.run(['umount', '-l', self.root], check=True)
        subprocess.run(['umount', '-l', self.directory], check=True)
        self.directory.rmdir()
        # systemd-nspawn leaves this one where /run is no tmpfs.
        with contextlib.suppress(OSError):
            os.rmdir(f'/run/systemd/nspawn/propagate/{self.name}')


#
# Control groups
#
class ControlGroup:
    """A group of the container's own in each tree that systemd uses: two containers in one would share it, and a stop
    in one would end the other's units."""

    count = 0

    def __init__(self, parents):
        ControlGroup.count += 1
        name = f'muster-test-{os.getpid()}-{ControlGroup.count}'
        self.paths = [parent / name for parent in parents]
        for path in self.paths:
            path.mkdir()

    @staticmethod
    def parents():
        mounts = {}
        for line in pathlib.Path('/proc/self/mountinfo').read_text().splitlines():
            left, right = line.split(' - ')
            fstype, _, options = right.split(' ', 2)
            if fstype == 'cgroup2':
                mounts['0::'] = left.split()[4]
            elif fstype == 'cgroup' and 'name=systemd' in options:
                mounts['name=systemd'] = left.split()[4]
        for line in pathlib.Path('/proc/self/cgroup').read_text().splitlines():
            number, name, path = line.split(':', 2)
            mount = mounts.get('0::') if number == '0' else mounts.get(name)
            if mount and os.access(mount, os.W_OK):
                yield pathlib.Path(mount) / path.lstrip('/')

    def enter(self):
        for path in self.paths:
            (path / 'cgroup.procs').write_text('0')

    def close(self):
        for path in self.paths:
            for directory, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)


#
# Machines
#
def nspawn(root, *arguments, **popen):
    """Starts systemd-nspawn on a tree, in a group of its own; returns the process and its group."""
    # Where systemd runs it makes a unit for the container, and with it a group; elsewhere both are ours to care for.
    by_systemd = os.path.isdir('/run/systemd/system')
    group = ControlGroup([] if by_systemd else ControlGroup.parents())

    def prepare():
        group.enter()
        die_with_parent()

    command = ['systemd-nspawn', '--quiet', '-D', str(root), '--register=no', '--private-network', '--settings=no']
    if not by_systemd:
        command += ['--keep-unit']
    environment = {**os.environ, 'SYSTEMD_NSPAWN_UNIFIED_HIERARCHY': '1'}
    return subprocess.Popen([*command, *arguments], preexec_fn=prepare, env=environment, **popen), group


def run_in_tree(tree, command, binds):
    """Runs a program in a copy of the tree, without a network; returns its output."""
    overlay = Overlay(tree)
    try:
        options = [f'--bind={outside}:{inside}' for outside, inside in binds.items()]
        options += [f'--setenv={name}={os.environ[name]}' for name in ['DEB_BUILD_OPTIONS'] if name in os.environ]
        process, group = nspawn(overlay.root, f'--machine={overlay.name}', *options, '--pipe', '--', *command,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output, _ = process.communicate()
        group.close()
        return process.returncode, output
    finally:
        overlay.close()


class Unit(dict):
    """The properties of a unit, as systemctl show has them."""

    def __getattr__(self, name):
        return self[name]


class Machine:
    """A booted container."""

    def __init__(self, suite, tree=run_tree):
        self.suite = suite
        self.overlay = Overlay(tree(suite))
        self.root = self.overlay.root
        self.console = open(self.overlay.directory / 'console', 'w+')
        (self.root / 'etc/hostname').write_text('machine\n')
        self.process, self.group = nspawn(self.root, '--boot', f'--machine={self.overlay.name}', '--console=pipe',
                                          stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console)
        self.leader = None
        self.network = None
        try:
            self.leader = wait_for(self._find_leader, 'the container has a first process')
            # Its bus is there some moments after its first process.
            wait_for(lambda: self.run('systemctl', 'is-system-running', '--wait', check=False).stdout.strip()
                     in ('running', 'degraded'), 'the container has booted', 60)
        except BaseException:
            self.close()
            raise

    def _find_leader(self):
        if self.process.poll() is not None:
            self.console.seek(0)
            raise AssertionError(f'systemd-nspawn ended: {self.console.read()}')
        children = pathlib.Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children').read_text().split()
        # The one that has become an init; before, it is a fork of systemd-nspawn.
        for child in children:
            with contextlib.suppress(OSError):
                if pathlib.Path(f'/proc/{child}/comm').read_text().strip() in ('systemd', 'init'):
                    return int(child)
        return None

    def close(self):
        if self.process.poll() is None:
            # Its first process takes all others along.
            with contextlib.suppress(ProcessLookupError):
                if self.leader:
                    os.kill(self.leader, signal.SIGKILL)
                else:
                    self.process.kill()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.network:
            self.network.close()
        self.console.close()
        self.overlay.close()
        self.group.close()

    # Commands

    def run(self, *command, check=True, timeout=120):
        done = subprocess.run(['nsenter', '-t', str(self.leader), '-a', *command], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
                              env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL': 'C.UTF-8', 'HOME': '/root'})
        if check and done.returncode != 0:
            raise AssertionError(f'{" ".join(command)} failed ({done.returncode}):\n{done.stdout}')
        return done

    def start(self, *command):
        """The same, without waiting for its end."""
        return subprocess.Popen(['nsenter', '-t', str(self.leader), '-a', *command], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                preexec_fn=die_with_parent)

    def systemctl(self, *arguments, **options):
        return self.run('systemctl', '--no-pager', *arguments, **options)

    def unit(self, name):
        lines = self.systemctl('show', '--all', name).stdout.splitlines()
        return Unit(line.split('=', 1) for line in lines if '=' in line)

    def wait_unit(self, name, state, deadline=60):
        def reached():
            unit = self.unit(name)
            return unit if unit.ActiveState == state else None
        return wait_for(reached, f'{name} is {state}', deadline)

    def journal(self, *arguments):
        """The entries of the journal that the arguments of journalctl select."""
        self.run('journalctl', '--sync')
        output = self.run('journalctl', '--no-pager', '--all', '-o', 'json', *arguments).stdout
        return [json.loads(line) for line in output.splitlines() if line.startswith('{')]

    def messages(self, unit):
        return [entry.get('MESSAGE', '') for entry in self.journal('-u', unit)]

    # Files and processes

    def path(self, path):
        """A file of the machine, seen from outside."""
        return self.root / path.lstrip('/')

    def live_path(self, path):
        """The same for what is not in the tree, but mounted by the machine (/run, /proc)."""
        return pathlib.Path(f'/proc/{self.leader}/root') / path.lstrip('/')

    def write(self, path, text):
        path = self.path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def proc(self, pid, name):
        return self.live_path(f'/proc/{pid}/{name}')

    def kill(self, pid, name):
        self.run('kill', '-s', name, str(pid))

    def stop_at_rest(self, pid):
        """SIGSTOP to a process that waits for events, and not in the middle of a turn, with which it would go on."""
        wait_for(lambda: self.proc(pid, 'syscall').read_text().split()[0] in WAITING, 'it waits for events')
        self.kill(pid, 'STOP')
        wait_for(lambda: self.proc(pid, 'stat').read_text().rpartition(')')[2].split()[0] == 'T', 'it is stopped')

    def children(self, pid):
        text = self.run('ps', '-o', 'pid=', '--ppid', str(pid), check=False).stdout
        return sorted(int(word) for word in text.split())

    def processes(self, unit):
        """The pids in the unit's control group and those below it."""
        group = self.unit(unit).ControlGroup
        if not group:
            return []
        pids = self.run('find', f'/sys/fs/cgroup{group}', '-name', 'cgroup.procs', '-exec', 'cat', '{}', '+', check=False).stdout.split()
        return sorted(int(pid) for pid in pids if pid.isdigit())

    # The network

    def socket(self, family=socket.AF_INET):
        """A socket of this process that is in the machine's network."""
        if not self.network:
            self.network = Network(self.leader)
        return self.network.socket(family)


class Network:
    """A network namespace, and sockets in it: each is made by a thread that has entered it."""

    def __init__(self, pid):
        self.namespace = os.open(f'/proc/{pid}/ns/net', os.O_RDONLY | os.O_CLOEXEC)

    def socket(self, family):
        result = []

        def make():
            if libc.setns(self.namespace, CLONE_NEWNET) < 0:
                result.append(OSError(ctypes.get_errno(), 'setns'))
            else:
                result.append(socket.socket(family, socket.SOCK_STREAM))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(result[0], OSError):
            raise result[0]
        return result[0]

    def close(self):
        os.close(self.namespace)
