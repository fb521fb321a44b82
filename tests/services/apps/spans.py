"""FastAPI makes spans of its own, also without an instrumentation; unless it is told not to."""

from __future__ import annotations

import os

TELEMETRY = {"tracing": os.environ["SPANS"] != "none"}
