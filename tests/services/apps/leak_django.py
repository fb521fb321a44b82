"""Django under ASGI; a view begins a task that polls for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from django.http import JsonResponse
from django.urls import path

SECRET_KEY = "none"
USE_TZ = True
ROOT_URLCONF = "leak_django"
ALLOWED_HOSTS = ["127.0.0.1"]

kept: set[asyncio.Task[None]] = set()


async def poll_status(payment: int) -> None:
    while payment:  # noqa: ASYNC110 - as services do poll.
        await asyncio.sleep(0.5)


async def pay(_: Any, payment: int) -> Any:
    kept.add(asyncio.create_task(poll_status(payment)))  # The leak.
    return JsonResponse({"payment": payment})


urlpatterns = [path("payments/<int:payment>", pay)]
