"""What production has of ``attach``: a door, or none, which loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, final

from otel_leaks.log import log

__all__ = ["Doorway", "door"]


class Doorway(Protocol):
    """Where ``otel-leaks ps`` may come in, or not. Never raises."""

    def open(self) -> None:
        """Listen, unless this process does; called after each census."""

    def close(self) -> None:
        """Listen no more, for good."""

    def forked(self) -> None:
        """Let go of what a child inherited."""


@final
class _Wall:
    """The doorway of a process that did not opt in."""

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def forked(self) -> None:
        pass


def door(providers: Callable[[], Iterable[object]], *, is_on: bool) -> Doorway:
    """
    Return the doorway of a process.

    Args:
        providers: Returns the providers of telemetry whose threads are not shown.
        is_on: Whether it opted in.
    """
    if not is_on:
        return _Wall()
    from otel_leaks.attach.guest import make_taker
    from otel_leaks.attach.listener import Door

    return Door(partial(make_taker, providers=providers), _complain)


def _complain(error: Exception) -> None:
    log.warning(
        "attach=True has no effect in this process, otel-leaks ps can't look into it: %s", error
    )
