# SPDX-License-Identifier: MIT
"""The packages under test: built by packaging/build in a tree of the Debian that they are for."""

import hashlib
import pathlib
import re
import shutil
import subprocess

from machine import TOP, build_tree, locked, run_in_tree

# What a package is made of; a change elsewhere is no reason to build anew.
SOURCES = ['LICENSE', 'NEWS.md', 'README.md', 'meson.build', 'meson_options.txt', 'packaging', 'src', 'tests/meson.build',
           'tests/unit', 'units']


def digest(tree):
    result = hashlib.sha256(str(tree).encode())
    for source in SOURCES:
        path = TOP / source
        for file in sorted(path.rglob('*')) if path.is_dir() else [path]:
            if file.is_file() and '__pycache__' not in file.parts:
                result.update(f'{file.relative_to(TOP)} {file.stat().st_mode:o}\n'.encode() + file.read_bytes())
    return result.hexdigest()


class Packages:
    def __init__(self, suite, directory):
        self.suite = suite
        self.directory = directory

    def debs(self, *names):
        """The .deb files of these packages; a package's name ends where its version begins."""
        found = [next(self.directory.glob(f'{name}_*.deb')) for name in names]
        assert len(found) == len(names)
        return found

    def rpms(self, *names):
        return [next(path for path in self.directory.glob(f'{name}-*.rpm') if re.match(rf'{name}-\d', path.name))
                for name in names]


def build(suite):
    directory = TOP / 'build/packages' / suite
    directory.mkdir(parents=True, exist_ok=True)
    stamp = directory / 'built-from'

    with locked(directory / 'lock'):
        tree = build_tree(suite)
        wanted = digest(tree)
        if not stamp.exists() or stamp.read_text() != wanted:
            status, output = run_in_tree(tree, ['/source/packaging/build', '--output=/packages', 'all'],
                                         {TOP: '/source', directory: '/packages'})
            (directory / 'build.log').write_text(output)
            assert status == 0, output[-6000:]
            stamp.write_text(wanted)
    return Packages(suite, directory)


def install(machine, packages):
    """As a person does it."""
    for package in packages.debs('muster', 'libmuster0'):
        shutil.copy(package, machine.path('/root'))
    machine.run('sh', '-c', 'dpkg -i /root/*.deb && rm /root/*.deb')


def with_higher_version(package, directory):
    """The same .deb with a higher version, its dependencies on its siblings included."""
    work = pathlib.Path(directory) / package.stem
    subprocess.run(['dpkg-deb', '--raw-extract', package, work], check=True)
    control = work / 'DEBIAN/control'
    text = control.read_text()
    version = re.search(r'^Version: (.*)$', text, re.M).group(1)
    control.write_text(text.replace(version, version + '+upgrade1'))
    result = pathlib.Path(directory) / f'{package.stem}+upgrade1.deb'
    subprocess.run(['dpkg-deb', '--build', '--root-owner-group', work, result], check=True,
                   stdout=subprocess.DEVNULL)
    return result
