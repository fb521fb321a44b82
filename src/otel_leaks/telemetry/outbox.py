"""
Detections on their way to several sinks, each of which may raise or hang.

A failing sink does not keep a detection from the others, and is offered it again.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from opentelemetry import trace
from opentelemetry.trace import Link

from otel_leaks.model import Detection
from otel_leaks.telemetry.attributes import Described

__all__ = ["Outbox", "Report", "Run", "Send", "run"]

MAX_TRIES = 5
"""How often a report is offered to a sink that raises: immediately, and then 1, 2, 4 and 8
censuses later."""
MAX_WAITING = 16
"""Reports that wait for a sink; the newest displaces the oldest."""

Send = Callable[["Report"], None]
Run = Callable[[str, Callable[[], None]], "BaseException | bool"]
"""Runs a function as the part of that name. Returns True; False if it was skipped because a
thread is still in that part; or the exception that it raised."""


def run(_: str, act: Callable[[], None]) -> BaseException | bool:
    """Run a function directly, if nothing supervises the sinks."""
    try:
        act()
    except Exception as error:  # Raised by a processor or handler.
        return error
    return True


@dataclass(slots=True)
class Report:
    """A detection, or its end, on its way to the sinks that have not received it."""

    detection: Detection
    sinks: dict[str, Send]
    links: list[Link]
    """Links to the spans that reported the finding and its leak before."""
    span: trace.Span = trace.INVALID_SPAN
    tries: int = 0
    wait: int = 0
    """Censuses until it is offered again."""
    max_bytes: int | None = None
    """Its size limit, once that was requested."""
    text: list[Described] = field(default_factory=list)
    """Its description, once that was made."""


class Outbox:
    """
    Offers reports to their sinks.

    Args:
        run: Runs each sink.
    """

    def __init__(self, run: Run = run) -> None:
        self._run = run
        self._waiting: deque[Report] = deque(maxlen=MAX_WAITING)

    def send(self, report: Report) -> None:
        """
        Offer a report to its sinks.

        Raises:
            BaseException: The first exception of a sink; the others have received it.
        """
        # Before it is offered: if that hangs, another thread continues with it.
        self._waiting.append(report)
        errors = self._offer(report)
        if errors:
            raise errors[0]

    def retry(self) -> None:
        """
        Offer reports again to the sinks that failed; to be called once per census.

        Raises:
            BaseException: As for ``send``.
        """
        errors: list[BaseException] = []
        for report in list(self._waiting):
            if report.wait:
                report.wait -= 1
            else:
                errors += self._offer(report)
        if errors:
            raise errors[0]

    def clear(self) -> None:
        """Forget all waiting reports."""
        self._waiting.clear()

    def _offer(self, report: Report) -> list[BaseException]:
        """Offer a report to the sinks that have not received it; return their exceptions."""
        errors: list[BaseException] = []
        for name, send in list(report.sinks.items()):
            outcome = self._run(name, partial(self._take, report, name, send))
            if isinstance(outcome, BaseException):
                errors.append(outcome)
        if errors:
            report.tries += 1
            report.wait = 2 ** (report.tries - 1) - 1
        if not report.sinks or report.tries >= MAX_TRIES:
            with contextlib.suppress(ValueError):  # Newer ones have pushed it out.
                self._waiting.remove(report)
        return errors

    @staticmethod
    def _take(report: Report, name: str, send: Send) -> None:
        send(report)
        # Here, because a thread that hung in the sink gets here as well.
        report.sinks.pop(name, None)
