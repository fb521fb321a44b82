"""
The shop of ../compose.yaml. It leaks on request, and ends the leaked tasks on request.

    curl --request POST 'localhost:8000/orders?n=200'   # leaves a task behind for each order
    curl --request POST localhost:8000/fix              # ends them
"""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

updates: list[asyncio.Queue[str]] = []
followers: set[asyncio.Task[None]] = set()


async def place_orders(request: Request) -> JSONResponse:
    for _ in range(int(request.query_params.get("n", "1"))):
        queue: asyncio.Queue[str] = asyncio.Queue()
        updates.append(queue)
        followers.add(asyncio.create_task(keep_customer_posted(queue)))
    return JSONResponse({"pending": len(followers)}, 201)


async def keep_customer_posted(queue: asyncio.Queue[str]) -> None:
    # The bug: nothing ever puts "done" into the queue.
    while await queue.get() != "done":
        pass


async def fix(_: Request) -> JSONResponse:
    for queue in updates:
        queue.put_nowait("done")
    await asyncio.gather(*followers)
    updates.clear()
    followers.clear()
    return JSONResponse({"pending": 0})


app = Starlette(
    routes=[
        Route("/orders", place_orders, methods=["POST"]),
        Route("/fix", fix, methods=["POST"]),
    ]
)
