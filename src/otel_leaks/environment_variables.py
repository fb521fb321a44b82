"""
The environment variables of ``LeakConfig``, for ``opentelemetry-instrument --help``.

That command makes a flag, ``--leaks_interval_s``, of each name here that begins with
``OTEL_``.
"""

from __future__ import annotations

from otel_leaks.config import LeakConfig, environment_variable

globals().update(
    {environment_variable(name): environment_variable(name) for name in LeakConfig.names()}
)
