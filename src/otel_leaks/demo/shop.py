"""
The web shop. It has one common bug, see ``keep_customer_posted``.

Tests and traces look fine: every order is answered at once, with 201.
"""

from __future__ import annotations

import asyncio
import itertools

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

__all__ = ["LEAKING", "shop"]

Updates = asyncio.Queue[str]


def shop() -> Starlette:
    """Create the shop: ``POST /orders`` and ``GET /orders/{number}``."""
    numbers = itertools.count(1)
    subscribers: dict[int, Updates] = {}

    async def place_order(_: Request) -> JSONResponse:
        number = next(numbers)
        subscribers[number] = asyncio.Queue()
        subscribers[number].put_nowait("accepted")
        asyncio.create_task(keep_customer_posted(subscribers[number]))  # noqa: RUF006
        return JSONResponse({"order": number}, 201)

    async def show_order(request: Request) -> JSONResponse:
        number = request.path_params["number"]
        if number not in subscribers:
            return JSONResponse({"error": f"there is no order {number}"}, 404)
        return JSONResponse({"order": number, "status": "accepted"})

    return Starlette(
        routes=[
            Route("/orders", place_order, methods=["POST"]),
            Route("/orders/{number:int}", show_order),
        ]
    )


async def keep_customer_posted(updates: Updates) -> None:
    """
    Notify a customer of every update of an order.

    The bug: when the order is done, nothing signals that, and nothing cancels this task. It
    waits for an update that never comes, and so does the task of the next order.
    """
    while True:
        await next_update(updates)


async def next_update(updates: Updates) -> str:
    """Wait for an update."""
    return await updates.get()


LEAKING = f"{__name__}.{keep_customer_posted.__qualname__}"
"""The function that a detection must name."""
