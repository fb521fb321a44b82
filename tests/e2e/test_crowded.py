"""Very many tasks, sites and frames, with very long and odd names, in a real process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def test_100_000_tasks_at_5_000_sites_900_deep_are_two_small_detections() -> None:
    service = Path(__file__).with_name("crowded_service.py")
    done = subprocess.run(
        [sys.executable, "-X", "utf8", str(service), "100000", "5000", "900"],
        capture_output=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    sent = json.loads(done.stdout)
    tasks, threads, metrics = sent["asyncio_task"], sent["thread"], sent["metrics"]
    # The main task and thread are counted too, and a task blocks at up to two places.
    assert (tasks["count"], threads["count"]) == (100_001, 21)
    assert tasks["sites"] >= 5_000
    for detection in (tasks, threads):
        assert 0 < detection["span"] < 128 * 1024
        assert 0 < detection["records"] < 128 * 1024
    # The innermost frames are there, whatever was left out.
    assert tasks["innermost"] == ["deep"]
    # The main thread is one of them, and may stand in its selector by then.
    assert {*threads["innermost"]} - {"select"} == {"wait"}
    assert 0 < metrics["size"] < 64 * 1024
    # Each WARNING is short too.
    assert len(done.stderr) < 2 * 16 * 1024
