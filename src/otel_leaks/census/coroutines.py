"""The ``coroutine`` source: coroutines that were destroyed without having been awaited."""

from __future__ import annotations

from collections.abc import Iterator

from otel_leaks.census.source import FewSource, Look, Seen

__all__ = ["unawaited_coroutines"]


def unawaited_coroutines() -> FewSource:
    """Reads the notes on them, if somebody asked for notes; nothing else is left of them."""
    return FewSource("coroutine", _unawaited)


def _unawaited(look: Look) -> Iterator[Seen]:
    if look.starts is None:
        return
    for left in list(look.starts.unawaited):
        if look.wants(left):
            yield Seen(left, (), left.name, (left.name,))
