"""Which tasks can be read: a custom class may store its attributes in its own way."""

from __future__ import annotations

import weakref
from typing import final

from otel_leaks.runtime.glimpse import name_of_type
from otel_leaks.runtime.task_makes import is_readable
from otel_leaks.runtime.tasks import TaskRef, kinds_of

__all__ = ["ReadableTasks"]

_OWN = frozenset({"_asyncio.Task", "asyncio.tasks.Task"})
"""asyncio's classes of tasks; classes from elsewhere are not kept alive by being remembered."""


@final
class ReadableTasks:
    """Remembers for each class of tasks whether its tasks can be read."""

    def __init__(self) -> None:
        self._trusted: set[type] = {type(None)}
        self._asked: dict[int, tuple[weakref.ref[type], bool]] = {}
        """Classes that were examined, by id, and whether their tasks can be read."""

    def among(self, refs: list[TaskRef], unreadable: set[str]) -> list[TaskRef]:
        """Leave out tasks of classes that can't be read; add the names of these."""
        kinds = kinds_of(refs)
        if self._trusted.issuperset(kinds):
            return refs
        can = [self._can_read(kind) for kind in kinds]
        unreadable.update(
            name_of_type(kind) for kind, is_read in zip(kinds, can, strict=True) if not is_read
        )
        return [ref for ref, is_read in zip(refs, can, strict=True) if is_read]

    def _can_read(self, kind: type) -> bool:
        if kind in self._trusted:
            return True
        asked = self._asked.get(id(kind))
        if asked is None or asked[0]() is not kind:
            if name_of_type(kind) in _OWN and is_readable(kind):
                self._trusted.add(kind)
            key = id(kind)
            ref = weakref.ReferenceType(kind, lambda _: self._asked.pop(key, None))
            asked = self._asked[key] = (ref, is_readable(kind))
        return asked[1]
