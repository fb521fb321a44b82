"""FastAPI; POST begins a job that goes on for minutes after the answer, and ends."""

from __future__ import annotations

import asyncio

from fastapi import BackgroundTasks, FastAPI
from spans import TELEMETRY  # type: ignore[import-not-found]

app = FastAPI(telemetry=TELEMETRY)
running: set[asyncio.Task[None]] = set()


async def render(seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.post("/reports", status_code=202)
async def reports(seconds: float) -> dict[str, int]:
    job = asyncio.create_task(render(seconds))
    running.add(job)
    job.add_done_callback(running.discard)
    return {"running": len(running)}


@app.post("/mails", status_code=202)
async def mails(seconds: float, later: BackgroundTasks) -> dict[str, str]:
    later.add_task(asyncio.sleep, seconds)
    return {"status": "accepted"}
