"""The ``destroyed_task`` source: tasks that the collector destroyed while pending."""

from __future__ import annotations

from collections.abc import Iterator

from otel_leaks.census.source import FewSource, Look, Seen

__all__ = ["destroyed_tasks"]


def destroyed_tasks() -> FewSource:
    """
    Reads what was noted of destroyed tasks; nothing else of them is left.

    asyncio proves this leak by itself, but only logs it: no test fails of it.
    """
    return FewSource("destroyed_task", _destroyed)


def _destroyed(look: Look) -> Iterator[Seen]:
    if look.starts is None:
        return
    for left in list(look.starts.destroyed):
        if look.wants(left):
            yield Seen(left, left.stack, left.name, () if left.stack else ("?",))
