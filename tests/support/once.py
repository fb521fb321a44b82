"""What is slow to get is got by one process, and the others wait for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["one_at_a_time"]


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let a second process wait for what the first one puts into *folder*, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        # Both get it; the last rename wins, and both are the same.
        yield
        return
    import fcntl

    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Ends with the file, also when the process dies.
        yield
