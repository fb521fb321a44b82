"""Celery with its pool of threads and redis as broker."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

app: Any = Celery("celery_threads", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 1


@app.task(name="convert")  # type: ignore[untyped-decorator]
def convert(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
