"""The tasks of this process, without those that a forked child inherited from its parent."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, final

from otel_leaks.runtime.inherited import Inherited
from otel_leaks.runtime.loops import wrap_every_loop
from otel_leaks.runtime.patches import Patches
from otel_leaks.runtime.task_registry import TaskRegistry
from otel_leaks.runtime.tasks import TaskRef

__all__ = ["LivingTasks"]


@final
class LivingTasks:
    """Finds the tasks of every loop of the process, while it is open."""

    def __init__(self) -> None:
        self._registry = TaskRegistry()
        self._inherited = Inherited(lambda: self._registry.refs(lambda: None))
        self._patches = Patches()
        self._wrapped: set[type] = set()
        self._is_open = False

    def open(self) -> None:
        """Start recording loops, on the versions that need it."""
        self._registry.open()
        self._is_open = True
        self._wrap_loops()

    def close(self) -> None:
        """Restore the patches and forget all tasks."""
        self._is_open = False
        self._patches.restore()
        self._wrapped.clear()
        self._registry.close()

    def forked(self) -> None:
        """
        Leave out the tasks of the parent's loops: they can never run in this child.

        3.14 empties its lists itself; the WeakSets of earlier versions are copied by the fork.
        """
        self._registry.forked()
        self._inherited.settle()

    def refs(self, pause: Callable[[], None]) -> list[TaskRef]:
        """Return references to all tasks, those of the parent as well."""
        self._wrap_loops()
        self._inherited.settle()
        return self._registry.refs(pause)

    def own(self, refs: list[TaskRef]) -> list[TaskRef]:
        """Leave out the tasks of the parent."""
        if not self._inherited:
            return refs
        return [ref for ref in refs if ref not in self._inherited]

    def _wrap_loops(self) -> None:
        """Watch for a child's first loop: tasks that exist before it are the parent's."""
        if self._is_open and sys.version_info < (3, 14):
            wrap_every_loop(
                self._patches, self._wrapped, "__init__", self._makes_loop, self._wrap_loops
            )

    def _makes_loop(self, original: Callable[..., None]) -> Callable[..., None]:
        settle = self._inherited.settle

        @functools.wraps(original)
        def init(*args: Any, **kwargs: Any) -> Any:
            try:  # noqa: SIM105 - suppress() takes longer than the rest
                settle()
            except Exception:  # noqa: S110 - the application makes its loop in any case
                pass
            return original(*args, **kwargs)

        return init
