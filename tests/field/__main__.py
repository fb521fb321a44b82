"""
Runs the suites of others with otel-leaks and without; see docs/field-report.md.

    python -m field                  # all of them; the results go to tests/field/results
    python -m field httpx asgiref    # some
    python -m field --page           # writes the page from the results, and runs nothing
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from field.compared import candidates, counted, judged, sites
from field.page import RESULTS, write_page
from field.running import Ran, Workplace
from field.suites import SUITES, Suite
from reliability.environment import PROJECT

AGAIN = 3
"""How often a test that differs is run again, alone and both ways."""
SHORT_S = 20.0
"""A suite that needs less CPU is run in one more round: its times are noise otherwise."""


def main(arguments: Sequence[str]) -> int:
    names = [each for each in arguments if not each.startswith("-")]
    unknown = set(names) - {each.name for each in SUITES}
    if unknown:
        sys.stderr.write(f"no suite {', '.join(sorted(unknown))}; see field/suites.py\n")
        return 2
    if "--page" not in arguments:
        with TemporaryDirectory(prefix="otel-leaks-field-") as name:
            package = Path(name) / "package"
            for suite in SUITES:
                if not names or suite.name in names:
                    _keep(suite, _seen(suite, package))
    write_page()
    return 0


def _seen(suite: Suite, package: Path) -> dict[str, Any]:
    place = Workplace(suite, package)
    _say(f"{suite.name} {suite.version}")
    # In turn, so that a busy machine is busy for both.
    without, warned = [_run(place, None)], [_run(place, "warn")]
    if without[0].cpu_s < SHORT_S:
        without.append(_run(place, None))
        warned.append(_run(place, "warn"))
    failing = _run(place, "fail")
    differing, flaky = _differing(place, without, [*warned, failing])
    return {
        "suite": suite.name,
        "version": suite.version,
        "python": platform.python_version(),
        "otel_leaks": _commit(),
        "date": time.strftime("%d %B %Y"),
        "tests": len(without[0].tests),
        "outcomes": counted(without[0]),
        "differing": differing,
        "flaky": flaky,
        "troubles": sorted({line for run in (*warned, failing) for line in run.troubles}),
        "cpu_s": {
            "without": [round(each.cpu_s, 1) for each in without],
            "warn": [round(each.cpu_s, 1) for each in warned],
            "fail": [round(failing.cpu_s, 1)],
        },
        "sites": sites([*warned, failing]),
    }


def _run(place: Workplace, mode: str | None, *tests: str) -> Ran:
    ran = place.run(mode, *tests)
    _say(f"  {mode or 'without':8}{ran.cpu_s:7.1f} s CPU   {ran.summary}")
    return ran


def _differing(
    place: Workplace, without: list[Ran], others: list[Ran]
) -> tuple[list[dict[str, str]], list[str]]:
    found: dict[tuple[str, str | None], tuple[str, Ran]] = {}
    for run in others:
        for node_id, outcome in candidates(without, run):
            found.setdefault((node_id, run.mode), (outcome, run))
    differing: list[dict[str, str]] = []
    flaky: list[str] = []
    for (node_id, mode), (outcome, run) in found.items():
        same_mode = [each for each in others if each.mode == mode]
        is_always = len(same_mode) > 1 and all(
            each.outcome(node_id) == outcome for each in same_mode
        )
        if not is_always and not _is_seen_again(place, node_id, mode, outcome):
            flaky.append(f"{node_id}: {outcome} with {mode}, once")
            continue
        differing.append(
            {
                "test": node_id,
                "mode": str(mode),
                "without": without[0].outcome(node_id),
                "with": outcome,
                "failure": run.tests.get(node_id, {}).get("failure", ""),
            }
        )
    return differing, flaky


def _is_seen_again(place: Workplace, node_id: str, mode: str | None, outcome: str) -> bool:
    """Say whether a test comes out so again with otel-leaks, and never without."""
    with_it = {_run(place, mode, node_id).outcome(node_id) for _ in range(AGAIN)}
    without = {_run(place, None, node_id).outcome(node_id) for _ in range(AGAIN)}
    return outcome in with_it - without


def _keep(suite: Suite, seen: dict[str, Any]) -> None:
    file = RESULTS / f"{suite.name}.json"
    before = json.loads(file.read_text("utf-8"))["sites"] if file.exists() else []
    judged(seen["sites"], before)
    file.write_text(json.dumps(seen, indent=2) + "\n", encoding="utf-8")


def _commit() -> str:
    command = ["git", "-C", str(PROJECT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
