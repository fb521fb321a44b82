"""Production's entry point to ``attach``: a listener, or a stub which imports nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, final

from otel_leaks.log import log

__all__ = ["Endpoint", "endpoint"]


class Endpoint(Protocol):
    """Where ``otel-leaks ps`` can connect, if the process opted in. Never raises."""

    def open(self) -> None:
        """Listen, unless this process already does; called after each census."""

    def close(self) -> None:
        """Stop listening permanently."""

    def forked(self) -> None:
        """Close what a child inherited."""


@final
class _NoEndpoint:
    """The endpoint of a process that did not opt in."""

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def forked(self) -> None:
        pass


def endpoint(providers: Callable[[], Iterable[object]], *, is_on: bool) -> Endpoint:
    """
    Return the endpoint of a process; it does nothing if the process did not opt in.

    Args:
        providers: Returns the telemetry providers whose threads are not shown.
        is_on: Whether the process opted in.
    """
    if not is_on:
        return _NoEndpoint()
    from otel_leaks.attach.guest import make_taker
    from otel_leaks.attach.listener import SocketEndpoint

    return SocketEndpoint(partial(make_taker, providers=providers), _complain)


def _complain(error: Exception) -> None:
    log.warning(
        "attach=True has no effect in this process, otel-leaks ps can't look into it: %s", error
    )
