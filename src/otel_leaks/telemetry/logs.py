"""Detections as log-based events, on the context of their span."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from time import time_ns
from typing import Any, Literal

from opentelemetry import _logs, trace
from opentelemetry._logs import Logger, LoggerProvider, SeverityNumber
from opentelemetry.context import Context

from otel_leaks.telemetry import names

__all__ = ["LogEvents"]

_SEVERITIES: Mapping[str, SeverityNumber] = {
    "WARN": SeverityNumber.WARN,
    "INFO": SeverityNumber.INFO,
}


class LogEvents:
    """
    Emits events as log records.

    Args:
        logger_provider: Where they go; None for the global one, even if that is set
            later.
        version: Of the instrumentation scope.
    """

    def __init__(self, logger_provider: LoggerProvider | None, *, version: str) -> None:
        self._logger = _logs.get_logger(names.SCOPE, version, logger_provider=logger_provider)

    @property
    def max_chars(self) -> int | None:
        """Characters that the SDK keeps of an attribute, from its start; None for all."""
        # Private; before SDK 1.43, loggers have no such limits, only the environment has.
        limits = getattr(_real(self._logger), "_log_record_limits", None)
        if limits is not None:
            most = getattr(limits, "max_log_record_attribute_length", None)
            return most if isinstance(most, int) else None
        text = os.environ.get("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "").strip()
        return int(text) if text.isdecimal() else None

    def emit(
        self,
        event_name: str,
        attributes: Mapping[str, str | int | float | bool],
        *,
        span: trace.Span,
        severity: Literal["WARN", "INFO"],
        body: str,
    ) -> None:
        """Emit one event, correlated with *span*, which may have ended."""
        now = time_ns()
        fields: dict[str, Any] = {
            "timestamp": now,
            "observed_timestamp": now,
            # An empty Context would be treated as the current one.
            "context": trace.set_span_in_context(span, Context()),
            "severity_text": severity,
            "severity_number": _SEVERITIES[severity],
            "body": body,
            "attributes": attributes,
            "event_name": event_name,
        }
        if "event_name" in inspect.signature(Logger.emit).parameters:
            self._logger.emit(**fields)
        else:
            self._logger.emit(_record(self._logger, fields))


def _real(logger: Logger) -> Logger:
    """Return the logger behind a proxy; private, 1.20 to 1.45 have it."""
    real = getattr(logger, "_logger", logger)
    return real if isinstance(real, Logger) else logger


def _record(logger: Logger, fields: Mapping[str, Any]) -> Any:
    """Make the record that ``emit`` expects in SDKs before 1.38."""
    from opentelemetry.sdk import _logs as sdk

    made: Any = sdk.LogRecord  # type: ignore[attr-defined]
    return made(resource=getattr(_real(logger), "resource", None), **fields)
