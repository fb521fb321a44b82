"""A Celery application whose broker and results are folders: nothing else has to run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import watched  # type: ignore[import-not-found]  # It lies beside, where the program runs.
from celery import Celery

watched.note_our_log()
watched.instrument_in_code()

_folder = Path(os.environ["BROKER"])
for each in ("queue", "control", "results"):
    (_folder / each).mkdir(exist_ok=True)

app: Any = Celery("work")
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": str(_folder / "queue"),
        "data_folder_out": str(_folder / "queue"),
        "control_folder": str(_folder / "control"),
        "polling_interval": 0.05,
    },
    broker_connection_retry_on_startup=True,
    result_backend=f"file://{_folder / 'results'}",
    worker_prefetch_multiplier=1,
)


@app.task(name="state")  # type: ignore[untyped-decorator]
def state() -> dict[str, Any]:
    found: dict[str, Any] = watched.state()
    return found


@app.task(name="leak")  # type: ignore[untyped-decorator]
def leak(pid: int, n: int) -> dict[str, Any] | None:
    if pid != os.getpid():
        return None
    watched.leak_threads(n)
    found: dict[str, Any] = watched.state()
    return found
