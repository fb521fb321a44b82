"""
How late event loops run, as metrics: for the last minute, and each for the worst loop.

Like Node's ``nodejs.eventloop.delay.p99``, ``.max`` and ``nodejs.eventloop.utilization``:
https://opentelemetry.io/docs/specs/semconv/runtime/nodejs-metrics/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from otel_leaks.model import Loops
from otel_leaks.telemetry import names

__all__ = ["loop_readings"]


def loop_readings(
    loops: Loops | None,
) -> Mapping[str, Sequence[tuple[float, Mapping[str, str | bool]]]]:
    """Return the readings of each metric; none if no loop has run."""
    if loops is None:
        return {}
    values = {
        names.LOOP_DELAY_P99: loops.delay_p99_s,
        names.LOOP_DELAY_MAX: loops.delay_max_s,
        names.LOOP_UTILIZATION: loops.utilization,
    }
    return {metric.name: [(round(value, 6), {})] for metric, value in values.items()}
