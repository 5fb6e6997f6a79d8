# SPDX-License-Identifier: MIT
"""Adds up the JUnit files of a folder: names what failed, ends with "N passed, N failed, N skipped".

A file of pytest that meson ran (integration-NAME in meson-BUILD.xml) counts with the cases in its own report,
pytest-BUILD-NAME.xml, where there is one.
"""

import pathlib
import sys
import xml.etree.ElementTree as ET


def outcome(case):
    if case.find('failure') is not None or case.find('error') is not None:
        return 'failed'
    return 'skipped' if case.find('skipped') is not None else 'passed'


def cases(file):
    """[(outcome, name, reason)] of a report; one that is broken off is a failure."""
    try:
        root = ET.parse(file).getroot()
    except ET.ParseError as e:
        return [('failed', f'unreadable report: {e}', '')]
    result = []
    for case in root.iter('testcase'):
        skipped = case.find('skipped')
        reason = skipped.get('message') if skipped is not None else None
        result.append((outcome(case), f'{case.get("classname") or ""} {case.get("name")}'.strip(), reason))
    return result


def own_report(file, name):
    """The report of the pytest file behind a test of meson."""
    test = name.split()[-1].partition('integration-')[2]
    report = file.with_name(f'pytest-{file.stem.removeprefix("meson-")}-{test}.xml')
    return cases(report) if test and report.exists() else []


def all_cases(directory):
    for file in sorted(directory.glob('*.xml')):
        if file.name.startswith('pytest-'):
            continue
        for case in cases(file):
            own = own_report(file, case[1]) if file.name.startswith('meson-') else []
            # A failure that pytest did not live to write down is one of meson's.
            if not own or case[0] == 'failed' and not any(c[0] == 'failed' for c in own):
                own = [*own, case]
            for result, name, reason in own:
                yield file.stem, result, name, reason


def main(directory):
    counts = {'passed': 0, 'failed': 0, 'skipped': 0}
    skipped = {}
    for report, result, name, reason in all_cases(pathlib.Path(directory)):
        counts[result] += 1
        if result == 'failed':
            print(f'FAILED {report}: {name}')
        elif result == 'skipped':
            skipped.setdefault((report, reason or 'no reason given'), []).append(name)
    for (report, reason), names in skipped.items():
        print(f'SKIPPED {report}: {reason} ({len(names)} tests, {names[0]}{" …" if len(names) > 1 else ""})')
    print(f'{counts["passed"]} passed, {counts["failed"]} failed, {counts["skipped"]} skipped')
    return 1 if counts['failed'] or not counts['passed'] else 0


sys.exit(main(sys.argv[1]))
