"""Instruments the program of ``otel-leaks run``, as ``opentelemetry-instrument`` would do."""

from __future__ import annotations

from importlib.metadata import entry_points

from opentelemetry.instrumentation.auto_instrumentation import initialize

from otel_leaks import LeakInstrumentor, configure

__all__ = ["start"]


def start() -> None:
    """Set up providers and instrumentations, which read their settings from the environment."""
    # A distribution of OpenTelemetry sets up providers by itself; without one nothing does.
    if not entry_points(group="opentelemetry_configurator"):
        configure()
    initialize()
    # If the package is only found through PYTHONPATH, it has no entry point.
    instrumentor = LeakInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument()
