"""
The environment variables of ``LeakConfig``, for ``opentelemetry-instrument --help``.

That command turns each name here that begins with ``OTEL_`` into a flag, such as
``--leaks_interval_s``.
"""

from __future__ import annotations

from otel_leaks.config import LeakConfig, environment_variable

globals().update(
    {environment_variable(name): environment_variable(name) for name in LeakConfig.names()}
)
