"""Django under ASGI: streams that stay open, from a view that runs in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path

SECRET_KEY = "none"
USE_TZ = True
ROOT_URLCONF = "django_streams"
ALLOWED_HOSTS = ["127.0.0.1"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]


async def lines() -> AsyncIterator[str]:
    while True:
        yield "tick\n"
        await asyncio.sleep(1)


def stream(_: Any) -> Any:
    return StreamingHttpResponse(lines())


def slow(_: Any) -> Any:
    time.sleep(0.1)
    return JsonResponse({})


async def quick(_: Any) -> Any:
    await asyncio.sleep(0.01)
    return JsonResponse({})


urlpatterns = [path("stream", stream), path("slow", slow), path("quick", quick)]
