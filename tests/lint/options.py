# SPDX-License-Identifier: MIT
"""The native worker has an option for each of the keys that concern it, with the same default: the master hands on all of them, so
that nobody would see that two places differ.

Arguments: musterd, muster-worker."""

import re
import subprocess
import sys

from rules import finish

musterd, worker = sys.argv[1:]
# Handed on by another name, or not at all.
MASTERS = {'kind', 'command', 'environment', 'environment_file', 'count', 'start_timeout', 'stop_timeout', 'soak', 'watchdog', 'max_memory',
           'max_age', 'jitter', 'balance', 'wait_ready', 'start_grace', 'stop_signal', 'spare', 'retire_on_uncaught'}
# What has no default worth the name.
PATHS = {'directory', 'module'}


def plain(value):
    return value.strip('"').replace('1min', '60s')


errors, checked = [], 0
usage = subprocess.run([worker, '--help'], capture_output=True, text=True, check=True).stdout
options = {name: (value or '') for name, _, value in re.findall(r'^  --([a-z-]+)(=(\S*))?', usage, re.M)}
printed = subprocess.run([musterd, '--print-config', '--config=/dev/null', 'lint'], capture_output=True, text=True, check=True).stdout
for group in 'app', 'workers', 'http', 'static':
    body = re.search(rf'^{group}: \{{\n(.*?)^\}};', printed, re.M | re.S)[1]
    for key, value in re.findall(r'^  (\w+) = (.*);$', body, re.M):
        if key in MASTERS:
            continue
        checked += 1
        name = key.replace('_', '-')
        if value == 'true':
            name, value = f'no-{name}', 'false'
        if name not in options:
            errors.append(f'muster-worker --help does not have --{name}, for {group}.{key}')
        elif value != 'false' and key not in PATHS and options[name] != plain(value):
            errors.append(f'{group}.{key} is {value}, and --{name} of muster-worker is "{options[name]}"')
finish(errors, checked)
