"""What ``otel-leaks run`` does in the program: what ``opentelemetry-instrument`` would do."""

from __future__ import annotations

from importlib.metadata import entry_points

from opentelemetry.instrumentation.auto_instrumentation import initialize

from otel_leaks import LeakInstrumentor, configure

__all__ = ["start"]


def start() -> None:
    """Set providers and instrumentations up; what they are told is in the environment."""
    # A distribution of OpenTelemetry sets providers up by itself; without one nobody does.
    if not entry_points(group="opentelemetry_configurator"):
        configure()
    initialize()
    # Where the package is found by PYTHONPATH alone it has no entry point.
    instrumentor = LeakInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument()
