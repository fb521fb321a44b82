"""A short job: over before any metric is exported, and as soon as its leak was detected."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import watched  # type: ignore[import-not-found]  # It lies beside, where the program runs.

watched.note_our_log()
watched.instrument_in_code()
watched.leak_threads(int(sys.argv[1]))
while os.environ["WATCHED"] == "1" and not Path(os.environ["OUR_LOG"]).exists():
    time.sleep(0.01)
print(time.monotonic())
