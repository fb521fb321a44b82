"""A minute of the soak; `make soak` runs fifteen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.collector import CollectorMissing, collector

pytestmark = [
    pytest.mark.reliability,
    pytest.mark.short,
    pytest.mark.skipif(sys.platform == "win32", reason="gunicorn forks"),
]


def test_after_a_minute_each_planted_leak_was_detected_and_resolved_and_none_invented() -> None:
    try:
        collector(os.environ, say=print)
    except CollectorMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    done = subprocess.run(
        [sys.executable, "-m", "reliability.soak", "--minutes=1"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    print(done.stdout)
    assert "\nThe balance holds.\n" in done.stdout
    assert done.returncode == 0
