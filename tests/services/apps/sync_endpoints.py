"""FastAPI with blocking endpoints, for which anyio may have 300 threads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = 300
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/slow/{seconds}")
def slow(seconds: float) -> dict[str, float]:
    time.sleep(seconds)
    return {"slept": seconds}
