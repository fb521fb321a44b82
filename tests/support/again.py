"""
Run pytest; what failed runs once more, alone.

    python tests/support/again.py build/report.xml -n 3 tests

A test that fails beside others and passes alone is a defect, of itself or of what it tests. But
it is another one than the change at hand, and of twenty thousand runs of tests on busy machines
one decides whether that change may come in. So it is named at the end, for somebody to mend, and
the run passes. Four such tests at once, or a crash, are no accident: then nothing runs again.

REPORT is written as JUnit XML. What passed at the second run has its failure there as
``flakyFailure``, as Maven's Surefire writes it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

MOST = 3
"""Tests that run again; more of them fail for a reason."""
FLAKY = "flakyFailure"
_FAILURES = {"failure", "error"}

_FAILED = 1
"""What pytest returns when tests failed, and nothing else happened."""
_OF_A_CRASH = "crashed while running"
"""What pytest-xdist says of a test that its worker did not survive."""


def run(report: Path, arguments: Sequence[str]) -> int:
    """
    Run pytest, and what failed again; return the status of the last run.

    Args:
        report: Is written.
        arguments: For pytest, from the current folder.
    """
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pytest = [sys.executable, "-m", "pytest", "-o", f"cache_dir={folder}/cache", *arguments]
        status = subprocess.run([*pytest, f"--junitxml={report}"], check=False).returncode
        failed = list(_failed(report))
        if status != _FAILED or not 0 < len(failed) <= MOST or any(map(_is_crash, failed)):
            return status
        print(f"\nonce more, alone: {len(failed)} that failed", flush=True)
        alone = ["--last-failed", "--last-failed-no-failures=none", "-n", "0"]
        status = subprocess.run([*pytest, *alone], check=False).returncode
    if status == 0:
        _note_flaky(report)
        print("\npassed only at the second run, alone; to be mended:")
        print(*(f"  {name}" for name in flaky(report)), sep="\n", flush=True)
    return status


def flaky(report: Path) -> list[str]:
    """Return the names of the tests that passed only at the second run."""
    if not report.exists():
        return []
    cases = ET.parse(report).iter("testcase")
    return [
        f"{each.get('classname')}.{each.get('name')}"
        for each in cases
        if each.find(FLAKY) is not None
    ]


def _failed(report: Path) -> Iterator[ET.Element]:
    """Yield the failures and errors of a report."""
    if report.exists():
        for case in ET.parse(report).iter("testcase"):
            yield from (each for each in case if each.tag in _FAILURES)


def _is_crash(failure: ET.Element) -> bool:
    return _OF_A_CRASH in (failure.get("message") or "") + (failure.text or "")


def _note_flaky(report: Path) -> None:
    tree = ET.parse(report)
    for suite in tree.iter("testsuite"):
        for case in suite.iter("testcase"):
            for each in case:
                if each.tag in _FAILURES:
                    each.tag = FLAKY
        suite.set("failures", "0")
        suite.set("errors", "0")
    tree.write(report, encoding="utf-8", xml_declaration=True)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
