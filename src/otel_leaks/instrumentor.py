"""
The door to production: ``LeakInstrumentor().instrument()``.

Wires the watch to telemetry, restores everything on ``uninstrument()``, and starts
anew in forked children.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Collection
from typing import Any

from opentelemetry._logs import LoggerProvider
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import NonRecordingSpan, TracerProvider

from otel_leaks import __version__
from otel_leaks.census import CensusTaker, Executors
from otel_leaks.census.beginnings import Beginnings
from otel_leaks.census.patches import Patches
from otel_leaks.config import LeakConfig
from otel_leaks.ignores import BUILT_IN, Ignores
from otel_leaks.log import log as _log
from otel_leaks.model import Census, Detection
from otel_leaks.telemetry.events import Events
from otel_leaks.telemetry.metrics import Metrics
from otel_leaks.telemetry.otlp import missing_providers
from otel_leaks.telemetry.spans import SpanReader, note_end
from otel_leaks.watch import OPENABLE, Watch, limits

__all__ = ["LeakInstrumentor"]


FORK_WAIT_S = 0.5
"""How long a fork waits for the monitor, which a stuck log handler may hold."""


class _Instrumentation:
    """One instrumentation at work; also the listener of its watch."""

    def __init__(
        self,
        config: LeakConfig,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        logger_provider: LoggerProvider | None,
    ) -> None:
        self._telling = threading.Lock()
        # Threads that fork, and have made the monitor wait: two may at once.
        self._forking: set[int] = set()
        ignores = Ignores((*BUILT_IN, *config.ignore))
        for ignore in ignores.expired:
            _log.warning(
                "%s has expired and hides nothing any more; mend the leak or give it a new date",
                ignore,
            )
        self._metrics = Metrics(
            meter_provider, limits=limits(config), openable=OPENABLE, version=__version__
        )
        spans = SpanReader()
        self._beginnings = (
            Beginnings(spans.current, spans.operation, tasks=config.origins == "all")
            if config.origins != "off"
            else None
        )
        self._events = Events(
            tracer_provider,
            max_frames=config.max_frames,
            version=__version__,
            emit=config.emit,
            logger_provider=logger_provider,
        )
        self._watch = Watch(
            config,
            lambda pause: CensusTaker(
                ignores=ignores,
                max_sites=config.max_sites,
                pause=pause,
                spans=spans,
                beginnings=self._beginnings,
                executors=Executors(),
            ),
            self,
        )
        self._patches = Patches()

    def start(self) -> None:
        self._patches.wrap(NonRecordingSpan, "end", note_end)
        if self._beginnings is not None:
            self._beginnings.open()
        self._watch.start()
        # Runs before the SDK's own, which were registered earlier. Their last collection
        # is the only one of a short job, so the metrics stay.
        atexit.register(self._watch.exiting)

    def stop(self) -> None:
        atexit.unregister(self._watch.exiting)
        self._watch.stop()
        self._patches.restore()
        if self._beginnings is not None:
            self._beginnings.close()
        self._events.close()
        self._metrics.close()

    def forking(self) -> None:
        """
        Wait until the monitor is in none of the SDK's locks, so that no child inherits one.

        The SDK does not renew all its locks in a child: one that was held at the fork
        is held there for ever.
        """
        if self._telling.acquire(timeout=FORK_WAIT_S):
            self._forking.add(threading.get_ident())

    def forked_from(self) -> None:
        """Go on in the parent."""
        if threading.get_ident() in self._forking:
            self._forking.discard(threading.get_ident())
            self._telling.release()

    def forked(self) -> None:
        """Start anew in the child."""
        self._telling = threading.Lock()
        self._forking = set()
        self._metrics.forked()
        self._events.forked()
        self._watch.forked()

    # Listener

    def opened(self, detection: Detection) -> None:
        with self._telling:
            self._metrics.opened(detection.finding.kind, detection.finding.evidence)
            self._events.detected(detection)

    def told_again(self, detection: Detection) -> None:
        with self._telling:
            self._events.detected(detection)

    def resolved(self, detection: Detection) -> None:
        with self._telling:
            self._events.resolved(detection)

    def looked(self, census: Census, opened: tuple[Detection, ...]) -> None:
        with self._telling:
            self._metrics.publish(census, opened)


_UNUSED = object()

# BaseInstrumentor keeps one instance a class and calls __init__ on it each time, so
# the state of that instance lives here.
_active: _Instrumentation | None = None
_fork_hook_registered = False


class LeakInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """
    Watches this process for leaked threads and asyncio tasks.

    ``instrument(**options)`` takes the options of ``LeakConfig`` and the usual
    ``tracer_provider``, ``meter_provider`` and ``logger_provider``; ``uninstrument()``
    ends the monitor, restores what was patched, and no metric is reported any more.

    Raises:
        TypeError: An unknown option, or a value of a wrong type, given in code.
        ValueError: A value given in code is out of its range.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: it watches the interpreter itself."""
        return ()

    def instrument(self, **options: Any) -> None:
        """Begin to watch. When that fails it is logged, and may be tried again."""
        super().instrument(**options)
        # BaseInstrumentor takes whatever returned as a success.
        self._is_instrumented_by_opentelemetry = _active is not None

    def _instrument(self, **options: Any) -> None:
        global _active
        tracer_provider = options.pop("tracer_provider", None)
        meter_provider = options.pop("meter_provider", None)
        logger_provider = options.pop("logger_provider", None)
        # Raises for bad options of code only: under opentelemetry-instrument there are
        # none, and whatever raises there ends every later instrumentation as well.
        config, problems = LeakConfig.resolve(options, os.environ)
        for problem in problems:
            _log.error("%s", problem)
        given = {
            "TracerProvider": tracer_provider,
            "MeterProvider": meter_provider,
            "LoggerProvider": logger_provider if config.emit != "span" else _UNUSED,
        }
        missing = [name for name in missing_providers() if given[name] is None]
        if missing:
            _log.warning(
                "no %s is set, so nothing is exported until there is one; start the "
                "application with opentelemetry-instrument, or call otel_leaks.configure() "
                "before instrument()",
                " and no ".join(missing),
            )
        instrumentation = None
        try:
            instrumentation = _Instrumentation(
                config, tracer_provider, meter_provider, logger_provider
            )
            _register_fork_hook()
            instrumentation.start()
        except Exception:  # The application starts, whatever is wrong with us.
            if instrumentation is not None:
                instrumentation.stop()
            _log.exception("leaks are not watched: starting failed; please report this")
            return
        _active = instrumentation

    def _uninstrument(self, **_: Any) -> None:
        global _active
        active, _active = _active, None
        if active is not None:
            active.stop()


def _register_fork_hook() -> None:
    """Register, once in the life of the process: fork hooks can't be taken back."""
    global _fork_hook_registered
    if not _fork_hook_registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )
        _fork_hook_registered = True


def _before_fork() -> None:
    active = _active
    if active is not None:
        active.forking()


def _after_fork_in_parent() -> None:
    # Stopped meanwhile by another thread, its monitor has ended or ends as a daemon.
    active = _active
    if active is not None:
        active.forked_from()


def _after_fork_in_child() -> None:
    active = _active
    if active is None:
        return
    try:
        active.forked()
    except Exception:  # The child is the application's.
        _log.exception("leaks are not watched in this forked process; please report this")
