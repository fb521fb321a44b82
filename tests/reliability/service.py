"""The leaky service, with a view of its own memory."""

from __future__ import annotations

import logging

from e2e.leaky_service import app
from reliability.own_memory import memory

__all__ = ["app"]

logging.basicConfig()
logging.getLogger("otel_leaks").setLevel(logging.INFO)
app.get("/memory")(memory)
