"""A service with a handler that blocks its event loop, and one that is long and does not."""

from __future__ import annotations

import asyncio
import os
import time

from fastapi import FastAPI

app = FastAPI()


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


def query(seconds: float) -> None:
    """Wait in place of a driver that is not asynchronous."""
    time.sleep(seconds)


@app.get("/export")
async def export(seconds: float) -> float:
    query(seconds)
    return seconds


@app.get("/streams")
async def streams(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds
