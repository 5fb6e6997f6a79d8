# SPDX-License-Identifier: MIT
"""Adds up the JUnit files of a folder: names what failed, ends with "N passed, N failed, N skipped"."""

import pathlib
import sys
import xml.etree.ElementTree as ET


def outcome(case):
    if case.find('failure') is not None or case.find('error') is not None:
        return 'failed'
    return 'skipped' if case.find('skipped') is not None else 'passed'


def main(directory):
    counts = {'passed': 0, 'failed': 0, 'skipped': 0}
    reasons = {}
    for file in sorted(pathlib.Path(directory).glob('*.xml')):
        for case in ET.parse(file).iter('testcase'):
            result = outcome(case)
            counts[result] += 1
            name = f'{file.stem}: {case.get("classname") or ""} {case.get("name")}'
            if result == 'failed':
                print(f'FAILED {name}')
            elif result == 'skipped':
                reason = case.find('skipped').get('message') or 'no reason given'
                reasons.setdefault((file.stem, reason), []).append(case.get('name'))
    for (stem, reason), names in reasons.items():
        print(f'SKIPPED {stem}: {reason} ({len(names)}: {", ".join(names[:3])}{", …" if len(names) > 3 else ""})')
    print(f'{counts["passed"]} passed, {counts["failed"]} failed, {counts["skipped"]} skipped')
    return 1 if counts['failed'] or not counts['passed'] else 0


sys.exit(main(sys.argv[1]))
