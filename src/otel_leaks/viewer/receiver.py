"""
A local OTLP/HTTP receiver.

It listens only on 127.0.0.1, and does not answer pages of other sites: a browser on this
machine can reach it as well, so the Host must be this machine's, and the Origin, if there
is one, the receiver's own.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from otel_leaks.viewer import otlp

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MAX_BODY_BYTES", "MAX_UNPACKED_BYTES", "Receiver", "application"]

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Limit of a body as received. Batches of SDKs stay under 4 MiB, gRPC's default limit."""
MAX_UNPACKED_BYTES = 32 * 1024 * 1024
"""Limit of a body after unpacking."""
PORTS = 20
"""Number of ports that are tried in turn, before any free one is used."""
_STOP_S = 5.0
_HOSTS = frozenset({"127.0.0.1", "localhost"})

_ASGI = Callable[[Any, Any, Any], Any]


class LocalOnly:
    """Rejects requests from pages of other sites, with 403."""

    def __init__(self, app: _ASGI) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = Request(scope).headers
            problem = _foreign(headers.get("host", ""), headers.get("origin"))
            if problem is not None:
                await PlainTextResponse(problem, 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _foreign(host: str, origin: str | None) -> str | None:
    if host.partition(":")[0] not in _HOSTS:
        return f"Host must be 127.0.0.1 or localhost, got {host!r}"
    if origin is not None and origin != f"http://{host}":
        return f"Origin must be http://{host} or absent, got {origin!r}"
    return None


def application(
    receive: Callable[[otlp.Export], object],
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """
    Create the receiver's web application.

    Args:
        receive: Called with each accepted request, on the server's event loop; it must
            neither block nor raise.
        max_body_bytes: Larger bodies are rejected with 413.
        max_unpacked_bytes: Bodies that unpack to more are rejected with 413 as well.
        routes: Further routes to serve.
    """

    async def take(request: Request) -> Response:
        media_type = otlp.JSON
        try:
            media_type = otlp.content_type(request.headers.get("content-type", ""))
            body = otlp.unpack(
                await _body(request, max_body_bytes),
                request.headers.get("content-encoding", ""),
                max_bytes=max_unpacked_bytes,
            )
            export = otlp.decode(request.url.path, media_type, body)
        except otlp.Refused as error:
            said = otlp.refused(error.message, media_type)
            return Response(said, error.status, media_type=media_type)
        except ClientDisconnect:
            return Response(status_code=400)
        receive(export)
        return Response(otlp.accepted(request.url.path, media_type), media_type=media_type)

    return Starlette(
        routes=[*(Route(path, take, methods=["POST"]) for path in otlp.PATHS), *routes],
        middleware=[Middleware(LocalOnly)],
    )


async def _body(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise otlp.Refused(413, f"the body is larger than {max_bytes} bytes")
    return bytes(body)


class Receiver:
    """
    Serves an application on a port of 127.0.0.1, from a thread; a context manager.

    Args:
        app: The result of ``application``.
        port: The preferred port; if it is taken, the next free one is used. 0 for any.

    Raises:
        OSError: There is no port to listen on.
    """

    def __init__(self, app: Starlette, port: int = 0) -> None:
        self._socket = _listening(port)
        self.port: int = self._socket.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        """The base URL for exporters."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="h11",
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._socket]},
            name="otel-leaks-receiver",
            daemon=True,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_S)
        self._socket.close()


def _listening(port: int) -> socket.socket:
    for each in range(port, min(port + PORTS, 65536)) if port else ():
        try:
            return socket.create_server(("127.0.0.1", each))
        except OSError:
            continue  # The port is taken, or needs privileges.
    return socket.create_server(("127.0.0.1", 0))
