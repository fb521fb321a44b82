"""
The page over HTTP: its files, its stream of changes, and the actions of its buttons.

Reading only requires access from this machine, see ``receiver``. Requests that change anything
require the token in the page's address: it is in the part after ``#``, which browsers never send.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from otel_leaks.viewer import assets, wire
from otel_leaks.viewer.store import Since, Store

__all__ = ["About", "Action", "Page"]

REFRESH_S = 0.25
"""Seconds between two checks for changes; all changes since are sent together."""
HEARTBEAT_S = 10.0
"""Seconds between heartbeats, which reveal that a page has gone away."""
MAX_STREAMS = 50

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Action:
    """A button of the page."""

    label: str
    run: Callable[[], str]
    """Performs the action and returns a message; called in a thread."""


@dataclass(frozen=True, slots=True)
class About:
    """What the page shows about itself."""

    title: str
    http: str
    """The endpoint for exporters."""
    grpc: str = ""
    """The same for gRPC, empty if there is none."""
    program: str = ""
    """The program that runs under the page; empty to accept any sender."""


class Page:
    """
    Serves the contents of a store.

    Args:
        store: The store to show.
        about: Called when a page opens.
        actions: Buttons, by a name for their address.
    """

    def __init__(
        self,
        store: Store,
        about: Callable[[], About],
        actions: Mapping[str, Action] | None = None,
    ) -> None:
        self._store = store
        self._about = about
        self._actions = dict(actions or {})
        self._streams = 0
        self.token = secrets.token_urlsafe(16)
        """The token that requests which change anything must have in the header ``X-Token``."""
        self.stopping = False
        """Set to True to end the streams."""
        self.routes = [
            Route("/", self._index),
            *(Route(f"/{name}", self._file, name=name) for name in assets.FILES),
            Route("/api/changes", self._changes),
            Route("/api/findings/{number:int}", self._finding),
            Route("/api/traces/{trace_id}", self._trace),
            Route("/api/actions/{name}", self._act, methods=["POST"]),
        ]

    async def _index(self, _: Request) -> Response:
        return _file("index.html")

    async def _file(self, request: Request) -> Response:
        return _file(request.url.path.removeprefix("/"))

    async def _finding(self, request: Request) -> Response:
        found = self._store.finding(request.path_params["number"])
        if found is None:
            return _json({"error": "This finding is not kept any more."}, 404)
        return _json(wire.detail(self._store, *found))

    async def _trace(self, request: Request) -> Response:
        return _json(wire.trace(self._store, request.path_params["trace_id"]))

    async def _act(self, request: Request) -> Response:
        given = request.headers.get("x-token", "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return _json({"error": "Open the page by the printed address, with its #token=."}, 403)
        action = self._actions.get(request.path_params["name"])
        if action is None:
            return _json({"error": "There is no such action."}, 404)
        return _json({"said": await asyncio.to_thread(action.run)})

    async def _changes(self, request: Request) -> Response:
        if self._streams >= MAX_STREAMS:
            return _json({"error": "Too many pages are open."}, 503)
        known = request.headers.get("last-event-id", "")
        return StreamingResponse(
            self._stream(known), headers={**_HEADERS}, media_type="text/event-stream"
        )

    async def _stream(self, known: str) -> AsyncIterator[str]:
        store = self._store
        epoch, _, number = known.partition("-")
        change = int(number) if epoch == store.epoch and number.isdecimal() else 0
        self._streams += 1
        try:
            yield _event("about", self._about_page())
            is_first = True
            silent_s = 0.0
            while not self.stopping:
                since = store.since(change)
                if since.change > change or is_first:
                    is_first, silent_s, change = False, 0.0, since.change
                    data = await asyncio.to_thread(_changes_event, store.epoch, since)
                    yield f"id: {store.epoch}-{change}\n{data}"
                elif silent_s >= HEARTBEAT_S:
                    silent_s = 0.0
                    yield ": still here\n\n"
                await asyncio.sleep(REFRESH_S)
                silent_s += REFRESH_S
        finally:
            self._streams -= 1

    def _about_page(self) -> dict[str, Any]:
        about = self._about()
        return {
            "title": about.title,
            "http": about.http,
            "grpc": about.grpc,
            "program": about.program,
            "actions": [[name, each.label] for name, each in self._actions.items()],
        }


def _changes_event(epoch: str, since: Since) -> str:
    return _event("changes", wire.changes(epoch, since))


def _event(name: str, data: Any) -> str:
    # A line end would end the event; JSON in ASCII has none.
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def _file(name: str) -> Response:
    return Response(assets.read(name), headers=_HEADERS, media_type=assets.media_type(name))


def _json(data: Any, status: int = 200) -> Response:
    return JSONResponse(data, status, headers=_HEADERS)
