"""FastAPI, SQLAlchemy's pool on asyncpg, and APScheduler with jobs that requests add."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import time
from collections.abc import AsyncIterator

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from fastapi import FastAPI
from spans import TELEMETRY  # type: ignore[import-not-found]
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

url = os.environ["POSTGRES"].replace("postgresql://", "postgresql+asyncpg://")
engine = create_async_engine(url, pool_size=10, max_overflow=20)
scheduler = AsyncIOScheduler(
    executors={"default": AsyncIOExecutor(), "threads": ThreadPoolExecutor(12)}
)


async def refresh() -> None:
    async with engine.connect() as connection:
        await connection.execute(text("select pg_sleep(0.2)"))


def render(seconds: float) -> None:
    time.sleep(seconds)


async def send(report: int) -> None:
    await asyncio.sleep(3)
    await refresh()


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    scheduler.start()
    for number in range(20):
        scheduler.add_job(refresh, "interval", seconds=1 + number % 5)
    yield
    scheduler.shutdown(wait=False)
    await engine.dispose()


app = FastAPI(lifespan=lifespan, telemetry=TELEMETRY)


@app.post("/reports/{report}")
async def reports(report: int) -> dict[str, int]:
    """Have it rendered and sent in some time."""
    now = dt.datetime.now(tz=dt.timezone.utc)
    due = now + dt.timedelta(seconds=2)
    scheduler.add_job(render, "date", run_date=due, args=[1.5], executor="threads")
    scheduler.add_job(send, "date", run_date=due, args=[report])
    return {"report": report}


@app.get("/reports/{report}")
async def get(report: int) -> dict[str, int]:
    async with engine.connect() as connection:
        await connection.execute(text("select pg_sleep(0.05)"))
    return {"report": report}
