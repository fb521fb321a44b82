"""
Find leaked threads and asyncio tasks: in production with OpenTelemetry.

    >>> from otel_leaks import LeakInstrumentor
    >>> LeakInstrumentor().instrument()

Turn it off like any OpenTelemetry instrumentation:

    >>> LeakInstrumentor().uninstrument()

Importing this package does not import OpenTelemetry. The names below are resolved on first
use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_leaks.instrumentor import LeakInstrumentor
    from otel_leaks.telemetry.otlp import configure
    from otel_leaks.testing.proof import prove

__version__ = "0.1.0.dev0"

__all__ = ["LeakInstrumentor", "__version__", "configure", "prove"]


def __getattr__(name: str) -> object:
    if name == "LeakInstrumentor":
        from otel_leaks.instrumentor import LeakInstrumentor

        return LeakInstrumentor
    if name == "configure":
        from otel_leaks.telemetry.otlp import configure

        return configure
    if name == "prove":
        from otel_leaks.testing.proof import prove

        return prove
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
