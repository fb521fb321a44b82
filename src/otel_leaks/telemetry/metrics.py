"""
Numbers of the last census as OpenTelemetry metrics.

An observable instrument can't be unregistered, and creating one twice silently drops the second
callback. So each MeterProvider gets its instruments only once; their callbacks read the current
board, and report nothing if there is none. They compute nothing but an age and take no lock,
because all callbacks of a process run under a single one.

A number is reported while it is fresh. If its source keeps failing, or the monitor hangs,
its series ends; ``python.leak.census.age`` continues, and rises.

https://github.com/open-telemetry/opentelemetry-python/blob/main/opentelemetry-sdk/src/opentelemetry/sdk/metrics/_internal/__init__.py
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from otel_leaks.model import OTHER, Census, Detection, Evidence, Kind, Pool
from otel_leaks.report.masks import masked
from otel_leaks.report.texts import name_text
from otel_leaks.runtime import forks, native
from otel_leaks.telemetry import names
from otel_leaks.telemetry.admission import (
    AT_ONCE,
    IN_A_LIFE,
    MOST_SERIES,
    NEVER,
    Admission,
    fitting,
)
from otel_leaks.telemetry.counts import Counted, Key, counted_of
from otel_leaks.telemetry.exits import Exports
from otel_leaks.telemetry.forks import renew_locks
from otel_leaks.telemetry.instruments import forget
from otel_leaks.telemetry.loop_metrics import loop_readings

__all__ = ["AT_ONCE", "IN_A_LIFE", "Admission", "Board", "Metrics"]

THREADS_AT_ONCE = 18
"""Functions of threads named at one time; each has up to two series, for daemons and others."""
POOLS_AT_ONCE = 5
"""Thread pools that are named at one time."""
ERROR_TYPES = 3
"""Types of source errors that are named in the life of a process."""

_LIMITS: Mapping[Kind, names.Metric] = {
    "thread": names.THREAD_LIMIT,
    "asyncio_task": names.TASK_LIMIT,
}

_Reading = tuple["int | float", Mapping[str, "str | bool"]]


@dataclass(frozen=True, slots=True)
class Board:
    """The values that the callbacks read: for each observable metric its readings."""

    readings: Mapping[str, Sequence[_Reading]]
    fresh_until: Mapping[str, float]
    """When a metric becomes too old to be reported, seconds of the clock; never if it is not
    listed."""
    counted_at: Mapping[Kind, float]
    """When each kind was counted last, seconds of the clock."""
    clock: Callable[[], float] = native.monotonic


class _Registration:
    """The instruments of one MeterProvider."""

    def __init__(self, meter: Meter, exports: Exports) -> None:
        self.exports = exports
        self.board: Board | None = None
        self.totals: dict[tuple[Kind, Evidence], int] = {}
        self._error_types: set[str] = set()
        make: Mapping[str, Callable[..., Any]] = {
            "observable_gauge": meter.create_observable_gauge,
            "observable_counter": meter.create_observable_counter,
        }
        self._observed = [
            make[metric.instrument](
                metric.name,
                callbacks=[
                    self._age if metric is names.CENSUS_AGE else self._callback(metric.name)
                ],
                unit=metric.unit,
                description=metric.description,
            )
            for metric in names.METRICS
            if metric.instrument in make
        ]
        self._duration = meter.create_histogram(
            names.CENSUS_DURATION.name,
            unit=names.CENSUS_DURATION.unit,
            description=names.CENSUS_DURATION.description,
            explicit_bucket_boundaries_advisory=[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10],
        )

    def _callback(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            board = self.board  # Read once: another thread may remove it.
            if name == names.OPEN.name:  # Once per collection.
                self.exports.collecting(is_empty=board is None or not board.readings)
            if board is None or board.clock() >= board.fresh_until.get(name, math.inf):
                return ()
            return [
                Observation(value, attributes) for value, attributes in board.readings.get(name, ())
            ]

        return observe

    def _age(self, _: CallbackOptions) -> Iterable[Observation]:
        board = self.board
        if board is None:
            return ()
        now = board.clock()
        return [
            Observation(round(now - at, 3), {names.KIND: kind})
            for kind, at in board.counted_at.items()
        ]

    def record(self, seconds: float, error_type: str | None) -> None:
        attributes = {}
        if error_type is not None:
            error_type = name_text(error_type)
            if len(self._error_types) < ERROR_TYPES:
                self._error_types.add(error_type)
            attributes[names.ERROR_TYPE] = error_type if error_type in self._error_types else OTHER
        self._duration.record(seconds, attributes)

    def take_down(self) -> None:
        self.board = None
        forget(self._duration)

    def forked(self, exporting: Iterable[object]) -> None:
        """Clear everything in a child: the numbers and what the SDK keeps of them."""
        self.board = None
        self.exports.forked(exporting)
        self.totals.clear()
        for instrument in (*self._observed, self._duration):
            forget(instrument)


_registrations: weakref.WeakKeyDictionary[MeterProvider, _Registration] = (
    weakref.WeakKeyDictionary()
)
_registering = forks.Lock()


class Metrics:
    """
    The metrics of one instrumentation, from ``instrument()`` to ``uninstrument()``.

    Args:
        meter_provider: Where they go; None for the global one, even if that is set
            later.
        limits: The threshold of each kind; None for no limit to report.
        openable: The pairs whose zero is reported before anything opens.
        fresh_for_s: Returns how many seconds the numbers of a census may be reported.
        clock: Monotonic seconds.
        is_deferred: Whether the instruments are created only when there is something to
            report. If a server forks its workers without Python's hooks, a master that
            exports for us would do so in a thread that may own the GIL at the fork.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None,
        *,
        limits: Mapping[Kind, int | None],
        openable: Sequence[tuple[Kind, Evidence]],
        version: str,
        fresh_for_s: Callable[[Census], float] = lambda _: math.inf,
        clock: Callable[[], float] = native.monotonic,
        is_deferred: bool = False,
    ) -> None:
        self._fresh_for_s = fresh_for_s
        self._clock = clock
        self._began_at = clock()
        self._counted_at: dict[Kind, float] = {}
        self._fresh_until: dict[str, float] = {}
        self._meter_provider = meter_provider
        self._limits = limits
        self._openable = openable
        self._version = version
        self._registration: _Registration | None = None
        if not is_deferred:
            self._registered()
        self._closed = False
        self._admissions = {metric.name: Admission() for metric in names.BY_FUNCTION}
        self._admissions[names.THREAD_COUNT.name] = Admission(THREADS_AT_ONCE, series=2)
        # Its counts only ever rise, so what is counted under one name must stay there.
        self._admissions[names.TASK_DESTROYED.name] = Admission(crowd=NEVER)
        self._counted: dict[str, Counted] = {}
        self._pool_admission = Admission(POOLS_AT_ONCE)
        self._pools: Mapping[str, Sequence[_Reading]] = {}
        self._pool_series: Collection[str] = ()
        self._series: dict[str, Collection[Key]] = {}

    def _registered(self) -> _Registration:
        if self._registration is None:
            self._registration = _registration_for(self._meter_provider, self._version)
        return self._registration

    def opened(self, kind: Kind, evidence: Evidence) -> None:
        """Count a detection; it is reported from the next ``publish`` on."""
        if self._closed:
            return
        totals = self._registered().totals
        totals[kind, evidence] = totals.get((kind, evidence), 0) + 1

    def publish(self, census: Census, opened: Iterable[Detection]) -> None:
        """
        Report a census until the next one.

        Args:
            census: The last census. A kind whose source failed keeps its last numbers while
                they are fresh.
            opened: The detections that are open now.
        """
        if self._closed:
            # From a monitor that was delayed: its numbers are outdated.
            return
        now = self._clock()
        fresh_until = now + self._fresh_for_s(census)
        for population in census.populations:
            self._counted_at[population.kind] = now
            for metric, counted in counted_of(population):
                self._counted[metric] = counted
                self._fresh_until[metric] = fresh_until
        for failure in census.failures:
            self._counted_at.setdefault(failure.kind, self._began_at)
        readings: dict[str, Sequence[_Reading]] = {}
        if census.pools is not None:
            self._pools = self._pool_readings(census.pools)
            self._counted_at["thread_pool"] = now
            self._fresh_until.update(dict.fromkeys(self._pools, fresh_until))
        readings.update(self._pools)
        readings.update(loops := loop_readings(census.loops))
        self._fresh_until.update(dict.fromkeys(loops, fresh_until))
        for kind, limit in self._limits.items():
            if limit is not None:
                readings[_LIMITS[kind].name] = [(limit, {})]
        open_now = dict.fromkeys(self._openable, 0)
        for detection in opened:
            pair = (detection.finding.kind, detection.finding.evidence)
            open_now[pair] = open_now.get(pair, 0) + 1
        registration = self._registered()
        totals = registration.totals
        readings[names.OPEN.name] = [(n, _pair(*pair)) for pair, n in open_now.items()]
        readings[names.DETECTIONS.name] = [(totals.get(pair, 0), _pair(*pair)) for pair in open_now]
        self._fresh_until[names.OPEN.name] = fresh_until
        # The series of the age of each kind, and the duration.
        others = sum(map(len, readings.values())) + len(self._counted_at) + 1
        readings.update(self._by_function(MOST_SERIES - others))
        registration.board = Board(
            readings, dict(self._fresh_until), dict(self._counted_at), self._clock
        )
        registration.exports.look()
        failures = (*census.failures, *census.unjudged)
        registration.record(census.wall_s, failures[0].error_type if failures else None)

    def exiting(self) -> None:
        """Leave nothing to the last collection if its export would not be answered."""
        if self._registration is not None and self._registration.exports.exiting():
            self.close()

    def close(self) -> None:
        """Stop reporting."""
        self._closed = True
        if self._registration is not None:
            self._registration.take_down()

    def forked(self) -> None:
        """
        Start from zero in a forked child, where nothing has been detected yet.

        The parent may have been exporting, and the SDK's locks are then held here.
        """
        provider = self._meter_provider or metrics.get_meter_provider()
        held = renew_locks(provider)
        if self._registration is not None:
            self._registration.forked(held)
        self._counted.clear()
        self._began_at = self._clock()
        self._counted_at.clear()
        self._fresh_until.clear()
        self._series.clear()
        self._pools = {}
        self._pool_series = ()

    def _by_function(self, room: int) -> Mapping[str, Sequence[_Reading]]:
        """Return the readings of the metrics by function, with names for at most *room* series."""
        admissions = [self._admissions[metric] for metric in self._counted]
        functions = [counted.functions() for counted in self._counted.values()]
        wanted = [
            (admission.wants(counts), admission.series)
            for admission, counts in zip(admissions, functions, strict=True)
        ]
        # What a counter has counted under a name must stay there.
        fixed = [metric == names.TASK_DESTROYED.name for metric in self._counted]
        fits = fitting(room, wanted, fixed)
        return {
            metric: self._named(metric, admission.admit(counts, most))
            for metric, admission, counts, most in zip(
                self._counted, admissions, functions, fits, strict=True
            )
        }

    def _named(self, metric: str, named: Collection[str]) -> Sequence[_Reading]:
        # A reported function without objects now is zero, and not simply missing.
        counts: dict[Key, int] = {
            key: 0 for key in self._series.get(metric, ()) if key[0] in named or key[0] == OTHER
        }
        for (function, daemon), count in self._counted[metric].counts.items():
            key = (function if function in named else OTHER, daemon)
            counts[key] = counts.get(key, 0) + count
        self._series[metric] = tuple(counts)
        return [
            (count, _function(function, daemon=daemon))
            for (function, daemon), count in counts.items()
        ]

    def _pool_readings(self, pools: Sequence[Pool]) -> Mapping[str, Sequence[_Reading]]:
        """Add up the pools of each masked name; those that are gone have zeros."""
        sizes: dict[str, int] = {}
        called = [masked(pool.name) for pool in pools]
        for name, pool in zip(called, pools, strict=True):
            sizes[name] = sizes.get(name, 0) + len(pool.workers) + pool.queued
        named = self._pool_admission.admit(sizes)
        sums = {name: [0, 0, 0] for name in self._pool_series if name in named or name == OTHER}
        for name, pool in zip(called, pools, strict=True):
            of = sums.setdefault(name if name in named else OTHER, [0, 0, 0])
            for i, value in enumerate((len(pool.workers), pool.limit, pool.queued)):
                of[i] += value
        self._pool_series = tuple(sums)
        return {
            metric.name: [(of[i], {names.POOL: name}) for name, of in sums.items()]
            for i, metric in enumerate((names.POOL_THREADS, names.POOL_LIMIT, names.POOL_QUEUE))
        }


def _pair(kind: Kind, evidence: Evidence) -> Mapping[str, str]:
    return {names.KIND: kind, names.EVIDENCE: evidence}


def _function(function: str, *, daemon: bool | None) -> Mapping[str, str | bool]:
    attributes: dict[str, str | bool] = {names.FUNCTION: function}
    if daemon is not None:
        attributes[names.DAEMON] = daemon
    return attributes


def _registration_for(meter_provider: MeterProvider | None, version: str) -> _Registration:
    provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    with _registering:
        found = _registrations.get(provider)
        if found is None and provider is metrics.get_meter_provider():
            # Instruments made before a provider was set were passed on to it.
            found = next((reg for each, reg in _registrations.items() if is_proxy(each)), None)
        if found is None:
            # Weakly, because the provider is the key of the dict that holds this.
            where = metrics.get_meter_provider if meter_provider is None else weakref.ref(provider)
            found = _Registration(provider.get_meter(names.SCOPE, version), Exports(where))
            _registrations[provider] = found
        return found


def is_proxy(provider: object) -> bool:
    """Return whether *provider* is a proxy for one that has not been set yet."""
    # Private in opentelemetry.metrics, public as ProxyTracerProvider in opentelemetry.trace.
    return type(provider).__name__ in {
        "_ProxyMeterProvider",
        "ProxyTracerProvider",
        "ProxyLoggerProvider",
    }
