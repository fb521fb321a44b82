"""SDK providers that export OTLP, for applications that have none."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otel_leaks.errors import InvalidTypeError, InvalidValueError
from otel_leaks.telemetry.metrics import is_proxy

__all__ = ["configure", "missing_providers"]


_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_PROTOCOLS = ("grpc", "http/protobuf")


def configure(endpoint: str | None = None, service_name: str | None = None) -> None:
    """
    Set up OpenTelemetry providers with OTLP exporters, if the application has none.

    A provider that is already set stays as it is. Everything else, such as headers and
    intervals, is read from OpenTelemetry's own environment variables.

    Args:
        endpoint: Base URL of an OTLP receiver, ``http://localhost:4317``; None for
            ``OTEL_EXPORTER_OTLP_ENDPOINT`` and its default. The protocol is that of
            ``OTEL_EXPORTER_OTLP_PROTOCOL``; without it, HTTP for port 4318 and gRPC
            for any other.
        service_name: ``service.name`` of the resource; None for ``OTEL_SERVICE_NAME``.

    Raises:
        InvalidTypeError: An argument is not a str.
        InvalidValueError: *endpoint* is not an http or https URL, or the protocol is unknown.

    .. versionadded:: 0.1
    """
    for name, value in (("endpoint", endpoint), ("service_name", service_name)):
        if value is not None and not isinstance(value, str):
            raise InvalidTypeError(f"{name} must be a str or None, got {value!r}")
    if endpoint is not None:
        endpoint = endpoint.rstrip("/")
        url = urlsplit(endpoint)
        if url.scheme not in {"http", "https"} or not url.netloc:
            raise InvalidValueError(
                f"endpoint must be a URL such as http://localhost:4317, got {endpoint!r}; "
                "leave it out to take OTEL_EXPORTER_OTLP_ENDPOINT"
            )
    make = _exporters(endpoint)
    resource = Resource.create({"service.name": service_name} if service_name else {})
    if is_proxy(trace.get_tracer_provider()):
        tracer_provider = TracerProvider(resource=resource)
        tracer_provider.add_span_processor(BatchSpanProcessor(make("traces")))
        trace.set_tracer_provider(tracer_provider)
    if is_proxy(metrics.get_meter_provider()):
        reader = PeriodicExportingMetricReader(make("metrics"))
        metrics.set_meter_provider(MeterProvider([reader], resource=resource))
    if is_proxy(_logs.get_logger_provider()):
        logger_provider = LoggerProvider(resource=resource)
        logger_provider.add_log_record_processor(BatchLogRecordProcessor(make("logs")))
        _logs.set_logger_provider(logger_provider)


def missing_providers() -> tuple[str, ...]:
    """Return which of the global providers are not set."""
    return tuple(
        name
        for name, provider in (
            ("TracerProvider", trace.get_tracer_provider()),
            ("MeterProvider", metrics.get_meter_provider()),
            ("LoggerProvider", _logs.get_logger_provider()),
        )
        if is_proxy(provider)
    )


def _exporters(endpoint: str | None) -> Callable[[str], Any]:
    """Return a function that makes a signal's exporter: ``traces``, ``metrics`` or ``logs``."""
    protocol = os.environ.get(_PROTOCOL, "").strip()
    if not protocol:
        at = endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        protocol = "http/protobuf" if at.rstrip("/").endswith(":4318") else "grpc"
    if protocol not in _PROTOCOLS:
        raise InvalidValueError(
            f"{_PROTOCOL} must be one of {', '.join(_PROTOCOLS)}, got {protocol!r}; "
            "leave it out for grpc"
        )
    # Imported here, so that exporting over HTTP does not load grpc.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        by_signal = {
            "traces": OTLPSpanExporter,
            "metrics": OTLPMetricExporter,
            "logs": OTLPLogExporter,
        }
        return lambda signal: by_signal[signal](endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces

    over_http = {
        "traces": http_traces.OTLPSpanExporter,
        "metrics": http_metrics.OTLPMetricExporter,
        "logs": http_logs.OTLPLogExporter,
    }
    return lambda signal: over_http[signal](
        endpoint=f"{endpoint}/v1/{signal}" if endpoint is not None else None
    )
