"""
The entry point for production: ``LeakInstrumentor().instrument()``.

Connects the watch to telemetry, restores everything on ``uninstrument()``, and starts
over in forked children.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Collection
from functools import partial
from types import FrameType
from typing import Any, final

from opentelemetry._logs import LoggerProvider, get_logger_provider
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import NonRecordingSpan, TracerProvider, get_tracer_provider

from otel_leaks import __version__
from otel_leaks.attach.opt_in import endpoint
from otel_leaks.census import CensusTaker, Executors
from otel_leaks.census.isolation import Parts
from otel_leaks.census.loop_watch import LoopWatch
from otel_leaks.config import LeakConfig
from otel_leaks.detect.policies import OPENABLE
from otel_leaks.detect.threshold import limits
from otel_leaks.ignores import IN_PRODUCTION, Ignores
from otel_leaks.log import log as _log
from otel_leaks.model import Census, Detection
from otel_leaks.monitor.watch import Watch, fresh_for_s
from otel_leaks.origins.production import Creations
from otel_leaks.report.masks import masked
from otel_leaks.runtime import forks, native, uwsgi
from otel_leaks.runtime.patches import Patches
from otel_leaks.telemetry.connections import renew_connections
from otel_leaks.telemetry.events import Events
from otel_leaks.telemetry.forks import restart_exports
from otel_leaks.telemetry.metrics import Metrics
from otel_leaks.telemetry.otlp import missing_providers
from otel_leaks.telemetry.reporting import Reporting
from otel_leaks.telemetry.spans import SpanReader, Switch, note_end

__all__ = ["LeakInstrumentor"]


class _Instrumentation:
    """One instrumentation at work; also the listener of its watch."""

    def __init__(
        self,
        config: LeakConfig,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        logger_provider: LoggerProvider | None,
    ) -> None:
        self.reporting = Reporting()
        self._providers = (tracer_provider, meter_provider, logger_provider)
        self._workers: uwsgi.Workers | None = None
        ignores = Ignores((*IN_PRODUCTION, *config.ignore))
        for ignore in ignores.expired:
            _log.warning(
                "%s has expired and no longer hides anything; fix the leak or set a new date",
                ignore,
            )
        self._server = uwsgi.server()
        self._is_master = self._server is not None and not uwsgi.is_worker(self._server)
        self._metrics = Metrics(
            meter_provider,
            limits=limits(config),
            openable=OPENABLE,
            version=__version__,
            fresh_for_s=lambda census: fresh_for_s(census, config),
            is_deferred=self._is_master,
        )
        spans = self._spans = SpanReader()
        self._creations = (
            Creations(spans.current, spans.operation, spans.end, tasks=config.origins == "all")
            if config.origins != "off"
            else None
        )
        self._parts = Parts()
        self._events = Events(
            tracer_provider,
            max_frames=config.max_frames,
            version=__version__,
            emit=config.emit,
            logger_provider=logger_provider,
            run=self._parts.attempt,
            step=self._parts.step,
        )
        self._watch = Watch(
            config,
            lambda pause: CensusTaker(
                ignores=ignores,
                max_sites=config.max_sites,
                pause=pause,
                spans=spans,
                creations=self._creations,
                executors=Executors(masked),
                providers=self._current_providers,
                parts=self._parts,
                loops=LoopWatch(config.stalled_s, spans) if config.measure_loops else None,
            ),
            self,
            parts=self._parts,
            replaced=self.reporting.renew,
            retry=self._retry,
        )
        self._patches = Patches()
        self._noting_ends = Switch()
        self._endpoint = endpoint(self._current_providers, is_on=config.attach)

    def start(self) -> None:
        self._noting_ends.is_on = True
        self._spans.watch(*self._tracer_providers())
        self._patches.wrap(
            NonRecordingSpan,
            "end",
            partial(note_end, switch=self._noting_ends, count=self._spans.count_dropped),
        )
        if self._creations is not None:
            self._creations.open()
        server = self._server
        if server is None:
            self._watch.start()
        elif not self._is_master:
            forks.look_for_ghosts()
            self._watch.start()
        else:
            self._watch.prepare()
            self._workers = uwsgi.Workers(server, self._begin_in_worker)
            self._workers.open()
        if server is not None and not uwsgi.has_threads(server):
            _log.warning(
                "uWSGI runs no Python threads, so leaks are not watched; set enable-threads = true"
            )
        # Runs before the SDK's own handlers, which were registered earlier. Their last collection
        # is the only one of a short job, so the metrics stay.
        atexit.register(self._exiting)

    def stop(self) -> None:
        atexit.unregister(self._exiting)
        if self._workers is not None:
            self._workers.close()
        self._endpoint.close()
        self._watch.stop()
        self._noting_ends.is_on = False
        self._patches.restore()
        self._spans.close()
        if self._creations is not None:
            self._creations.close()
        self._events.close()
        self._metrics.close()

    def _begin_in_worker(self) -> None:
        """Start watching in a process that a server has forked, maybe without Python's hooks."""
        # Our failures must not affect the worker.
        with contextlib.suppress(Exception):
            if forks.is_announced():
                # This process was not forked, or was forked with the hooks.
                self._watch.begin()
            else:
                forks.announce()
                restart_exports(*self._current_providers())
                if not forks.can_read_frames():
                    _log.info(
                        "this worker was forked without Python's hooks, so stacks of threads "
                        "can't be read on Python 3.11 and 3.12; set "
                        "py-call-uwsgi-fork-hooks = true"
                    )

    def _exiting(self) -> None:
        with contextlib.suppress(Exception):  # Called by atexit: must not print a traceback.
            self._endpoint.close()
            self._watch.exiting()
            self._metrics.exiting()

    def _retry(self) -> None:
        with self.reporting.held():
            self._events.retry()

    def forked(self) -> None:
        """Start over in the child: constant time, since most children only exec."""
        self.reporting.forked()
        self._endpoint.forked()
        self._metrics.forked()
        self._events.forked()
        renew_connections(*self._current_providers())
        self._watch.forked()

    def _tracer_providers(self) -> tuple[object, object]:
        """Return the provider that was given and the global one, which may be set late."""
        return self._providers[0], get_tracer_provider()

    def _current_providers(self) -> tuple[object, object, object]:
        tracing, measuring, logs = self._providers
        return (
            tracing or get_tracer_provider(),
            measuring or get_meter_provider(),
            logs or get_logger_provider(),
        )

    # Listener

    def opened(self, detection: Detection) -> None:
        with self.reporting.held():
            self._metrics.opened(detection.finding.kind, detection.finding.evidence)
            self._events.detected(detection)

    def reminded(self, detection: Detection) -> None:
        with self.reporting.held():
            self._events.detected(detection)

    def resolved(self, detection: Detection) -> None:
        with self.reporting.held():
            self._events.resolved(detection)

    def looked(self, census: Census, opened: tuple[Detection, ...]) -> None:
        self._endpoint.open()
        with self.reporting.held():
            self._spans.watch(*self._tracer_providers())
            self._metrics.publish(census, opened)


_UNUSED = object()
_PROVIDERS = ("tracer_provider", "meter_provider", "logger_provider")

# BaseInstrumentor keeps one instance per class and calls __init__ on it each time, so
# the state of that instance lives here.
_active: _Instrumentation | None = None
_fork_hook_registered = False


@final
class LeakInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """
    Watches this process for leaked threads and asyncio tasks.

    ``instrument(**options)`` takes the options of ``LeakConfig`` and the usual
    ``tracer_provider``, ``meter_provider`` and ``logger_provider``. ``uninstrument()``
    stops the monitor, restores what was patched, and ends the metrics. Do not subclass it:
    BaseInstrumentor has one instance, which a subclass would share, see
    https://github.com/open-telemetry/opentelemetry-python-contrib/blob/main/opentelemetry-instrumentation/src/opentelemetry/instrumentation/instrumentor.py

    Raises:
        InvalidTypeError: An unknown option, or a value of a wrong type, given in code.
        InvalidValueError: A value given in code is out of its range.

    >>> LeakInstrumentor().instrument(thread_limit=0)
    Traceback (most recent call last):
    ...
    otel_leaks.errors.InvalidValueError: thread_limit must be a whole number >= 1, or None (an \
empty variable) for no limit, got 0; leave it out for the default of 200

    .. versionadded:: 0.1
    """

    _is_of_file = False
    """Whether the options come from a configuration file, by way of OpenTelemetry itself."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: this instruments the interpreter itself."""
        return ()

    def instrument(self, **options: Any) -> None:
        """Start watching. A failure is logged, and you can try again."""
        self._is_of_file = _is_of_opentelemetry(sys._getframe(1))
        super().instrument(**options)
        # BaseInstrumentor counts every call that returns as a success.
        self._is_instrumented_by_opentelemetry = _active is not None

    def _instrument(self, **options: Any) -> None:
        global _active
        # A file names no objects: there, a provider is an unknown option.
        providers = () if self._is_of_file else _PROVIDERS
        tracer_provider, meter_provider, logger_provider = (
            options.pop(name, None) if name in providers else None for name in _PROVIDERS
        )
        # Raises for bad options given in code only: an exception under opentelemetry-instrument
        # also ends every later instrumentation.
        config, problems = LeakConfig.resolve(options, os.environ, of_file=self._is_of_file)
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
        except Exception as error:  # Our failures must not keep the application from starting.
            if instrumentation is not None:
                instrumentation.stop()
            if isinstance(error, native.NoDaemonsError):
                _log.error(
                    "leaks are not watched in this interpreter, which has no daemon threads; "
                    "instrument the main interpreter of the process"
                )
                return
            _log.exception("leaks are not watched: starting failed; please report this")
            return
        _active = instrumentation

    def _uninstrument(self, **_: Any) -> None:
        global _active
        active, _active = _active, None
        if active is not None:
            active.stop()


def _is_of_opentelemetry(caller: FrameType) -> bool:
    """
    Return whether OpenTelemetry calls, and not the application.

    That is ``opentelemetry-instrument``, possibly through a custom distro, or
    ``OTEL_CONFIG_FILE``, whose options come as keyword arguments (SDK 1.45).
    """
    frame: FrameType | None = caller
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith(_AUTOMATIC) or (
            frame is caller and module.startswith("opentelemetry.")
        ):
            return True
        frame = frame.f_back
    return False


_AUTOMATIC = ("opentelemetry.configuration", "opentelemetry.instrumentation.auto_instrumentation")


def _register_fork_hook() -> None:
    """Register for forks, once in the life of the process."""
    global _fork_hook_registered
    if not _fork_hook_registered:
        forks.subscribe(_before_fork, _after_fork_in_parent, _after_fork_in_child)
        _fork_hook_registered = True


# The instrumentation that each forking thread has put on hold: meanwhile another thread may
# have stopped this one and started the next.
_held_back: dict[int, _Instrumentation] = {}


def _before_fork() -> None:
    active = _active
    if active is not None:
        _held_back[threading.get_ident()] = active
        active.reporting.forking()


def _after_fork_in_parent() -> None:
    held = _held_back.pop(threading.get_ident(), None)
    if held is not None:
        held.reporting.forked_from()


def _after_fork_in_child() -> None:
    _after_fork_in_parent()
    _held_back.clear()
    active = _active
    if active is None or forks.only_execs():
        return
    try:
        active.forked()
    except Exception:  # The child belongs to the application.
        _log.exception("leaks are not watched in this forked process; please report this")
