"""
The tasks that a forked child inherited from its parent: they can never run in the child.

Up to 3.13 a child has a copy of its parent's registry of tasks; 3.14 empties it. Copying
it at the fork would cost each child a walk over all tasks, even one that only execs. The copy
is therefore made late: as soon as the child creates an event loop, or at the first look. A task
that the child creates on one of its parent's loops before that is taken for the parent's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, final

__all__ = ["Inherited"]


@final
class Inherited:
    """
    The tasks that existed at the fork; none in the process that created this object.

    Args:
        read: Returns weak references to all tasks of the process.
        pid: Returns the pid of the process.
    """

    def __init__(
        self, read: Callable[[], Iterable[Any]], pid: Callable[[], int] = os.getpid
    ) -> None:
        self._read = read
        self._pid = pid
        self._settled_in = pid()
        self._refs: Collection[Any] = frozenset()

    def settle(self) -> None:
        """At the first call in a child, take all existing tasks for the parent's."""
        pid = self._pid()
        if pid != self._settled_in:
            self._settled_in = pid
            self._refs = frozenset(self._read())

    def __bool__(self) -> bool:
        return bool(self._refs)

    def __contains__(self, ref: Any) -> bool:
        return ref in self._refs
