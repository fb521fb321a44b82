"""FastAPI; a client with an executor of its own for each request, and none is shut down."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI

app = FastAPI()
clients: list[Client] = []


class Client:
    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(2)
        clients.append(self)

    async def ask(self, what: str) -> str:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.pool, str.upper, what)  # The leak.


@app.get("/search/{what}")
async def search(what: str) -> dict[str, str]:
    return {"found": await Client().ask(what)}
