"""
The tracer of our own scope, which always samples.

Samplers drop root spans like any others, and each detection is one. If an application turned
tracing off (``always_off``), it stays off.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import Tracer
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import TracerProvider

from otel_leaks.telemetry import names

__all__ = ["OwnTracer"]


class OwnTracer:
    """
    Makes the tracer of our scope always sample, until it is closed.

    Args:
        provider: Where spans go; None for the global one, even if that is set later.
        version: Of the instrumentation scope.
    """

    def __init__(self, provider: TracerProvider | None, *, version: str) -> None:
        self._tracer = trace.get_tracer(names.SCOPE, version, provider)
        self._closed = False
        self._sampled: tuple[Tracer, Sampler] | None = None

    def get(self) -> trace.Tracer:
        """Return the tracer behind a proxy, made to always sample."""
        # A proxy resolves itself when a provider is set; private, 1.20 to 1.45 have it.
        tracer = getattr(self._tracer, "_tracer", self._tracer)
        ours = self._sampled is not None or self._closed
        if isinstance(tracer, Tracer) and not ours and not _is_off(tracer.sampler):
            self._sampled = (tracer, tracer.sampler)
            tracer.sampler = ALWAYS_ON
        return tracer if isinstance(tracer, trace.Tracer) else self._tracer

    def close(self) -> None:
        """Restore the tracer's own sampler, which applies to later spans."""
        self._closed = True
        if self._sampled is not None:
            tracer, sampler = self._sampled
            if tracer.sampler is ALWAYS_ON:
                tracer.sampler = sampler
            self._sampled = None


def _is_off(sampler: Sampler) -> bool:
    off = ALWAYS_OFF.get_description()
    said = sampler.get_description()
    return said == off or said.startswith(f"ParentBased{{root:{off},")
