"""FastAPI with an executor of 256 threads, which blocking jobs fill."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from spans import TELEMETRY  # type: ignore[import-not-found]

app = FastAPI(telemetry=TELEMETRY)
pool = ThreadPoolExecutor(256, thread_name_prefix="blocking")


def convert(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.get("/convert/{seconds}")
async def run(seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    return {"slept": await loop.run_in_executor(pool, convert, seconds)}
