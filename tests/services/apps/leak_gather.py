"""FastAPI; one of two gathered calls fails, and the other goes on for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, HTTPException

app = FastAPI()
subscribed: dict[int, asyncio.Event] = {}


async def ask_stock(_: int) -> None:
    await asyncio.sleep(0.01)
    raise TimeoutError


async def ask_price(item: int) -> None:
    subscribed[id(asyncio.current_task())] = changed = asyncio.Event()
    await changed.wait()
    print(item)


@app.get("/items/{item}")
async def items(item: int) -> dict[str, Any]:
    try:
        found = await asyncio.gather(ask_stock(item), ask_price(item))  # The leak.
    except TimeoutError:
        raise HTTPException(504) from None
    return {"found": found}
