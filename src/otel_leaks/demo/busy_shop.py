"""
The shop of the live page: its requests have spans, and it has a second bug, and a fix.

The spans are those that OpenTelemetry's instrumentation of a framework would create.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from otel_leaks.demo.shop import keep_customer_posted, shop

__all__ = ["busy_shop"]


def busy_shop() -> Starlette:
    """Create the shop, with ``POST /receipts``, ``POST /fix`` and ``POST /break``."""
    tracer = trace.get_tracer("shop")
    is_fixed = False

    async def print_receipt(_: Request) -> JSONResponse:
        if not is_fixed:
            asyncio.create_task(wait_for_printer())  # noqa: RUF006 - the second bug
        return JSONResponse({"receipt": "soon"}, 202)

    async def fix(_: Request) -> JSONResponse:
        nonlocal is_fixed
        is_fixed = True
        return JSONResponse({"ended": end_posts()})

    async def break_again(_: Request) -> JSONResponse:
        nonlocal is_fixed
        is_fixed = False
        return JSONResponse({"ended": 0})

    async def in_span(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        route = request.url.path if request.method == "POST" else "/orders/{number}"
        attributes = {"http.request.method": request.method, "http.route": route}
        with tracer.start_as_current_span(
            f"{request.method} {route}", kind=SpanKind.SERVER, attributes=attributes
        ):
            response = await answer(request)
        if is_fixed:
            end_posts()
        return response

    return Starlette(
        routes=[
            *shop().routes,
            Route("/receipts", print_receipt, methods=["POST"]),
            Route("/fix", fix, methods=["POST"]),
            Route("/break", break_again, methods=["POST"]),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=in_span)],
    )


async def wait_for_printer() -> None:
    """
    Wait until a receipt is printed.

    The bug: nothing else references the future, and nothing keeps the task. The garbage collector
    therefore destroys both, and no receipt is ever printed.
    """
    await asyncio.get_running_loop().create_future()


def end_posts() -> int:
    """Fix the first bug by cancelling the tasks that it left; return how many there were."""
    posts = [
        task
        for task in asyncio.all_tasks()
        if getattr(task.get_coro(), "cr_code", None) is keep_customer_posted.__code__
    ]
    for task in posts:
        task.cancel()
    return len(posts)
