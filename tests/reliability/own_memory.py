"""What a process under test knows of its own memory."""

from __future__ import annotations

import gc
import os
from collections import Counter

import psutil  # type: ignore[import-untyped]

__all__ = ["memory"]


async def memory() -> dict[str, int]:
    """Return the resident bytes, and how many objects of the package's types there are."""
    gc.collect()
    types = Counter(type(each) for each in gc.get_objects())
    # Of a few types __module__ is no text.
    ours = sum(n for kind, n in types.items() if str(kind.__module__).split(".")[0] == "otel_leaks")
    return {
        "pid": os.getpid(),
        "rss_bytes": psutil.Process().memory_info().rss,
        "objects": ours,
    }
