from __future__ import annotations

import asyncio
import threading
from collections import Counter

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from otel_leaks.demo.shop import LEAKING, keep_customer_posted, shop
from otel_leaks.demo.traffic import Traffic
from otel_leaks.viewer.receiver import Receiver


def test_each_order_is_answered_and_leaves_a_task_behind() -> None:
    async def visit() -> tuple[list[tuple[int, object]], Counter[str]]:
        transport = httpx.ASGITransport(app=shop())
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as customer:
            answers = [
                await customer.post("/orders"),
                await customer.post("/orders"),
                await customer.get("/orders/2"),
                await customer.get("/orders/3"),
            ]
        left = asyncio.all_tasks() - {asyncio.current_task()}
        names = Counter(task.get_coro().__qualname__ for task in left)  # type: ignore[union-attr]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return [(each.status_code, each.json()) for each in answers], names

    answers, left = asyncio.run(visit())
    assert answers == [
        (201, {"order": 1}),
        (201, {"order": 2}),
        (200, {"order": 2, "status": "accepted"}),
        (404, {"error": "there is no order 3"}),
    ]
    assert left == {"keep_customer_posted": 2}


def test_what_leaks_is_called_as_detections_call_it() -> None:
    assert LEAKING == "otel_leaks.demo.shop.keep_customer_posted"
    assert f"{keep_customer_posted.__module__}.{keep_customer_posted.__qualname__}" == LEAKING


def test_traffic_orders_and_looks_after_its_orders() -> None:
    asked: list[str] = []
    enough = threading.Event()

    async def answer(request: Request) -> JSONResponse:
        asked.append(f"{request.method} {request.url.path}")
        if len(asked) == 4:
            enough.set()
        return JSONResponse({"order": 7}, 201 if request.method == "POST" else 200)

    routes = [Route("/{path:path}", answer, methods=["GET", "POST"])]
    with Receiver(Starlette(routes=routes)) as served:
        port = int(served.endpoint.rpartition(":")[2])
        with Traffic(port, orders_a_second=1000) as traffic:
            assert enough.wait(20)
    assert asked[:4] == ["POST /orders", "GET /orders/7"] * 2
    assert traffic.answered == asked.count("POST /orders")


def test_traffic_ends_with_the_shop() -> None:
    refused = threading.Event()

    async def answer(_: Request) -> JSONResponse:
        refused.set()
        return JSONResponse({}, 500)

    routes = [Route("/orders", answer, methods=["POST"])]
    with Receiver(Starlette(routes=routes)) as served:
        port = int(served.endpoint.rpartition(":")[2])
        with Traffic(port, orders_a_second=1000) as traffic:
            assert refused.wait(20)
    assert traffic.answered == 0
