"""
Which tasks of a forked child are its parent's: they can never run there.

Up to 3.13 a child has a copy of its parent's registry of tasks; 3.14 empties it. Copying
it at the fork would cost each child a walk over all tasks, also one that only execs. So
the copy is made late: as soon as the child makes an event loop, or when it is first
looked at. A task that the child makes on a loop of its parent's before that is taken for
the parent's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, final

__all__ = ["Inherited"]


@final
class Inherited:
    """
    The tasks that were there at the fork; none in the process that this was made in.

    Args:
        read: Returns references to all tasks of the process.
        pid: Returns the number of the process.
    """

    def __init__(
        self, read: Callable[[], Iterable[Any]], pid: Callable[[], int] = os.getpid
    ) -> None:
        self._read = read
        self._pid = pid
        self._settled_in = pid()
        self._refs: Collection[Any] = frozenset()

    def settle(self) -> None:
        """Take what is there for the parent's, the first time in a child."""
        pid = self._pid()
        if pid != self._settled_in:
            self._settled_in = pid
            self._refs = frozenset(self._read())

    def __bool__(self) -> bool:
        return bool(self._refs)

    def __contains__(self, ref: Any) -> bool:
        return ref in self._refs
