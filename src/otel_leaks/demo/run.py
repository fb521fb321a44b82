"""The demo from start to end: the shop leaks, its telemetry arrives, the leak is reported."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_leaks.demo.service import Ended, Ready, Service
from otel_leaks.demo.shop import LEAKING
from otel_leaks.demo.traffic import Traffic
from otel_leaks.viewer.otlp import Export
from otel_leaks.viewer.received import Counts, Detected, counts_of, detections_of
from otel_leaks.viewer.receiver import Receiver, application
from otel_leaks.viewer.terminal import Scene, Screen, explain, status

__all__ = ["LIVE_TITLE", "TASK_LIMIT", "Story", "advance", "broken", "ending", "port_of", "run"]

TASK_LIMIT = 50
"""Limit of pending tasks. A service would have 10,000; this is lower, as a person is watching."""

LIVE_TITLE = "otel-leaks demo"
_TITLE = "otel-leaks demo: a web shop that leaves a task behind with every order"
_START_S = 30.0
"""Time limit of the start of a Python process on a busy machine, seconds."""
_LINGER_S = 2.5
"""Seconds after the detection, until an export of metrics shows it as well."""
_REDRAW_S = 0.25
_REMEMBERED = 60

_Event = Ready | Ended | Export


@dataclass(frozen=True, slots=True)
class Story:
    """The telemetry received so far."""

    history: tuple[Counts, ...] = ()
    """The counts of the last minute, oldest first."""
    leak: Detected | None = None
    """The first detection that names the leaking function."""

    @property
    def is_complete(self) -> bool:
        """Whether the counts show what was detected."""
        if self.leak is None or not self.history:
            return False
        counted = self.history[-1].of(self.leak.kind)
        return counted is not None and counted.count >= self.leak.count


def advance(story: Story, export: Export) -> Story:
    """Return the story with an export added to it."""
    if isinstance(export, ExportMetricsServiceRequest):
        history = (*story.history, *counts_of(export))
        return replace(story, history=history[-_REMEMBERED:])
    if isinstance(export, ExportTraceServiceRequest) and story.leak is None:
        leaks = (
            each
            for each in detections_of(export)
            if any(site.function == LEAKING for site in each.sites)
        )
        return replace(story, leak=next(leaks, None))
    return story


def ending(story: Story, *, orders: int, elapsed_s: float, seconds: float) -> tuple[str, ...]:
    """Return lines on how it went, and what to do next."""
    if story.leak is not None:
        return (
            f"Caught after {elapsed_s:.0f} s, though all {orders} orders were answered with 201.",
            "The bug: each order starts a task that waits for updates, and nobody ever",
            "tells it that the order is done. To find yours, put this into your service:",
            "",
            "    from otel_leaks import LeakInstrumentor, configure",
            "",
            '    configure("http://localhost:4317")  # your OpenTelemetry collector',
            "    LeakInstrumentor().instrument()",
        )
    counted = story.history[-1].of("asyncio_task") if story.history else None
    seen = "no telemetry came"
    if counted is not None:
        seen = f"{counted.count} asyncio tasks are pending, the limit is {counted.limit}"
    return (
        f"Not caught within {seconds:g} s: {seen}.",
        f"Give it more time: otel-leaks demo --seconds {2 * seconds:g}",
    )


def run(*, seconds: float, task_limit: int, screen: Screen) -> int:
    """
    Run the demo, and stop everything that it started.

    Args:
        seconds: How long to watch at most, from the first request on.
        task_limit: Limit of pending tasks.
        screen: Where it is shown.

    Returns:
        The exit status: 0 if the leak was caught, 1 if not.
    """
    events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
    with (
        Receiver(application(events.put)) as receiver,
        Service(receiver.endpoint, task_limit=task_limit, notify=events.put) as service,
    ):
        screen.draw(Scene(_TITLE, "starting the shop", 0.0))
        port = port_of(events)
        if port is None:
            screen.write(*broken("did not start", service))
            return 1
        with Traffic(port) as traffic:
            story, elapsed_s, has_ended = _watch(events, traffic, seconds, screen)
        if has_ended and story.leak is None:
            screen.write(*broken("ended too early", service))
            return 1
        orders = traffic.answered
    screen.write("")
    if story.leak is not None:
        screen.write(explain(story.leak, screen.marks, screen.columns), "")
    screen.write(*ending(story, orders=orders, elapsed_s=elapsed_s, seconds=seconds))
    return 0 if story.leak is not None else 1


def broken(what: str, service: Service) -> tuple[str, ...]:
    """Return lines that report that the shop is gone, with the end of its log."""
    tail = service.log_tail()
    if not tail:
        return (f"The shop {what}, and logged nothing.",)
    return (f"The shop {what}. Its log ends with:", "", *(f"    {line}" for line in tail))


def port_of(events: queue.SimpleQueue[Any]) -> int | None:
    """Wait for the service; return its port, None if it did not start."""
    deadline = time.monotonic() + _START_S
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            event = events.get(timeout=left_s)
        except queue.Empty:
            return None
        if isinstance(event, Ready):
            return event.port
        if isinstance(event, Ended):
            return None
    return None


def _watch(
    events: queue.SimpleQueue[_Event], traffic: Traffic, seconds: float, screen: Screen
) -> tuple[Story, float, bool]:
    """Show what arrives until it is complete; return it, the time, and whether the shop ended."""
    story = Story()
    started = time.monotonic()
    until = started + seconds
    if not screen.live:
        screen.write(_TITLE, "")
    while True:
        scene = Scene(
            _TITLE,
            f"{traffic.answered} orders, each answered with 201",
            time.monotonic() - started,
            story.history,
        )
        screen.draw(scene)
        left_s = until - time.monotonic()
        if story.is_complete or left_s <= 0:
            return story, scene.elapsed_s, False
        try:
            event = events.get(timeout=min(_REDRAW_S, left_s))
        except queue.Empty:
            continue
        if isinstance(event, Ended):
            return story, scene.elapsed_s, True
        if isinstance(event, Ready):
            continue
        before, story = story, advance(story, event)
        if story.leak is not None and before.leak is None:
            until = min(until, time.monotonic() + _LINGER_S)
        if len(story.history) > len(before.history) and not screen.live:
            screen.write(status(replace(scene, history=story.history), screen.marks))
