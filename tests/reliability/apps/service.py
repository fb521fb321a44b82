"""One service as a WSGI and as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import watched  # type: ignore[import-not-found]  # It lies beside, where the program runs.

watched.note_our_log()
watched.instrument_in_code()

_tasks: list[asyncio.Task[None]] = []


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """``/`` tells the state; ``/leak`` leaks in the process that is asked for, or refuses."""
    given = parse_qs(environ.get("QUERY_STRING", ""))
    status, answer = "200 OK", watched.state()
    if environ["PATH_INFO"] == "/leak":
        if _is_meant(given):
            watched.leak_threads(int(given["n"][0]))
        else:
            status = "409 Conflict"
    start_response(status, [("content-type", "application/json")])
    return [json.dumps(answer).encode()]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Do the same; what leaks is tasks."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    given = parse_qs(scope["query_string"].decode())
    status, answer = 200, watched.state()
    if scope["path"] == "/leak":
        if _is_meant(given):
            _tasks.extend(asyncio.create_task(stuck()) for _ in range(int(given["n"][0])))
        else:
            status = 409
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def stuck() -> None:
    await asyncio.get_running_loop().create_future()


def _is_meant(given: dict[str, list[str]]) -> bool:
    return int(given["pid"][0]) == os.getpid()
