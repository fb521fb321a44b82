"""
The receiving side of OTLP/HTTP: decodes bodies into messages, and encodes responses.

Pure functions; the specification is https://opentelemetry.io/docs/specs/otlp/#otlphttp.
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
"""A request that an application sends."""

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
"""The paths of the signals."""

_IDS = frozenset({"traceId", "spanId", "parentSpanId"})
_INVALID_ARGUMENT = 3
"""A google.rpc.Code; the specification leaves the choice to the receiver."""


class Refused(Exception):  # noqa: N818 - it is a response, not an error of ours
    """A request whose response is not 200; *status* is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def content_type(header: str) -> str:
    """
    Return the media type of a Content-Type header: ``PROTOBUF`` or ``JSON``.

    Raises:
        Refused: Status 415 if it is neither.
    """
    media_type = header.partition(";")[0].strip().lower()
    if media_type not in {PROTOBUF, JSON}:
        raise Refused(415, f"Content-Type must be {PROTOBUF} or {JSON}, got {header!r}")
    return media_type


def unpack(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """
    Undo a Content-Encoding.

    Args:
        body: The body as received.
        encoding: The header: ``gzip``, ``deflate``, ``identity`` or empty.
        max_bytes: Limit of the unpacked size.

    Raises:
        Refused: Status 415 for another encoding, 400 for a broken body, 413 for one that
            unpacks to more.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in {"gzip", "deflate"}:
        raise Refused(415, f"Content-Encoding must be gzip, deflate or identity, got {encoding!r}")
    # 32 + 15: detect a gzip or a zlib header.
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
    Decode the request of a signal.

    Args:
        path: One of ``PATHS``.
        media_type: ``PROTOBUF`` or ``JSON``.
        body: The unpacked body.

    Raises:
        Refused: Status 400 if the body is not such a request.
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
    # Besides ParseError, the protobuf package raises what its parts raise, such as SystemError
    # for a name with a lone surrogate (protobuf 7.36).
    except Exception as error:
        raise Refused(400, f"the body is no {type(request).__name__}: {error}") from None
    return request


def accepted(path: str, media_type: str) -> bytes:
    """Return the body of a response that reports that everything was accepted."""
    return _encode(_RESPONSES[path](), media_type)


def refused(message: str, media_type: str) -> bytes:
    """Return the body of a response that reports an error, a ``google.rpc.Status``."""
    # The message may quote the body, whose JSON may have escapes that are not valid text.
    said = message.encode("utf-8", "backslashreplace").decode()
    return _encode(Status(code=_INVALID_ARGUMENT, message=said), media_type)


def _encode(message: Message, media_type: str) -> bytes:
    if media_type == PROTOBUF:
        return bytes(message.SerializeToString())
    return str(json_format.MessageToJson(message, indent=None)).encode()


def _with_base64_ids(given: dict[str, Any]) -> dict[str, Any]:
    """Convert OTLP's hex ids to what protobuf's JSON expects. No other key has these names."""
    for key in _IDS & given.keys():
        value = given[key]
        try:
            given[key] = base64.urlsafe_b64encode(bytes.fromhex(value)).decode()
        except (TypeError, ValueError, binascii.Error):
            raise Refused(400, f"{key} must be hex digits, got {value!r}") from None
    return given
