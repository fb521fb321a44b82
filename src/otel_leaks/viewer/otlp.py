"""
OTLP/HTTP, receiving side: bodies into messages, answers into bodies.

Pure; https://opentelemetry.io/docs/specs/otlp/#otlphttp says what is right.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

__all__ = [
    "JSON",
    "PATHS",
    "PROTOBUF",
    "Export",
    "Refused",
    "accepted",
    "content_type",
    "decode",
    "refused",
    "unpack",
]

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

Export = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest
"""What an application sends."""

_REQUESTS: Mapping[str, type[Export]] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}
_RESPONSES: Mapping[str, type[Message]] = {
    "/v1/traces": ExportTraceServiceResponse,
    "/v1/metrics": ExportMetricsServiceResponse,
    "/v1/logs": ExportLogsServiceResponse,
}
PATHS = tuple(_REQUESTS)
"""Where the signals are received."""

_IDS = frozenset({"traceId", "spanId", "parentSpanId"})
_INVALID_ARGUMENT = 3
"""google.rpc.Code, which the specification leaves to the receiver."""


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault of ours
    """A request that gets another answer than 200; *status* is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def content_type(header: str) -> str:
    """
    Return the media type of a Content-Type header: ``PROTOBUF`` or ``JSON``.

    Raises:
        Refused: 415, it is neither.
    """
    media_type = header.partition(";")[0].strip().lower()
    if media_type not in {PROTOBUF, JSON}:
        raise Refused(415, f"Content-Type must be {PROTOBUF} or {JSON}, got {header!r}")
    return media_type


def unpack(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """
    Undo a Content-Encoding.

    Args:
        body: As received.
        encoding: The header: ``gzip``, ``deflate``, ``identity`` or empty.
        max_bytes: What it may unpack to.

    Raises:
        Refused: 415 for another encoding, 400 for a broken body, 413 for one that
            unpacks to more.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in {"gzip", "deflate"}:
        raise Refused(415, f"Content-Encoding must be gzip, deflate or identity, got {encoding!r}")
    # 32 + 15: a gzip or a zlib header, whichever is there.
    unpacker = zlib.decompressobj(wbits=47)
    try:
        unpacked = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Refused(400, f"the body is not {name}: {error}") from None
    if len(unpacked) > max_bytes:
        raise Refused(413, f"the body unpacks to more than {max_bytes} bytes")
    if not unpacker.eof:
        raise Refused(400, f"the body ends before its {name} stream does")
    return unpacked


def decode(path: str, media_type: str, body: bytes) -> Export:
    """
    Read the request of a signal.

    Args:
        path: One of ``PATHS``.
        media_type: ``PROTOBUF`` or ``JSON``.
        body: Unpacked.

    Raises:
        Refused: 400, the body is no such request.
    """
    request = _REQUESTS[path]()
    try:
        if media_type == PROTOBUF:
            request.ParseFromString(body)
        else:
            given = json.loads(body, object_hook=_with_base64_ids)
            if not isinstance(given, dict):
                raise Refused(400, f"the body must be a JSON object, got {type(given).__name__}")
            json_format.ParseDict(given, request, ignore_unknown_fields=True)
    except Refused:
        raise
    # Beside ParseError the protobuf package raises what its parts raise, SystemError for a
    # name with a lone surrogate among them (protobuf 7.36).
    except Exception as error:
        raise Refused(400, f"the body is no {type(request).__name__}: {error}") from None
    return request


def accepted(path: str, media_type: str) -> bytes:
    """Return the body that tells the sender that everything was taken."""
    return _encode(_RESPONSES[path](), media_type)


def refused(message: str, media_type: str) -> bytes:
    """Return the body, a ``google.rpc.Status``, that tells the sender what was wrong."""
    # It may quote the body, whose JSON may have escapes that are no text.
    said = message.encode("utf-8", "backslashreplace").decode()
    return _encode(Status(code=_INVALID_ARGUMENT, message=said), media_type)


def _encode(message: Message, media_type: str) -> bytes:
    if media_type == PROTOBUF:
        return bytes(message.SerializeToString())
    return str(json_format.MessageToJson(message, indent=None)).encode()


def _with_base64_ids(given: dict[str, Any]) -> dict[str, Any]:
    """Make OTLP's hex ids what protobuf's JSON expects. No other key has these names."""
    for key in _IDS & given.keys():
        value = given[key]
        try:
            given[key] = base64.urlsafe_b64encode(bytes.fromhex(value)).decode()
        except (TypeError, ValueError, binascii.Error):
            raise Refused(400, f"{key} must be hex digits, got {value!r}") from None
    return given
