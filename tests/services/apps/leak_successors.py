"""FastAPI; each request begins a chain of tasks: each begins the next one, and ends."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

app = FastAPI()
running: set[asyncio.Task[None]] = set()


def later(session: int) -> None:
    task = asyncio.create_task(renew(session))  # The leak.
    running.add(task)
    task.add_done_callback(running.discard)


async def renew(session: int) -> None:
    await asyncio.sleep(1)
    later(session)


@app.post("/sessions/{session}")
async def sessions(session: int) -> dict[str, int]:
    later(session)
    return {"session": session}
