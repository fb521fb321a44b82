"""Settings, addresses and WSGI application of a Django site, in one file."""

from __future__ import annotations

import os
import sys
from typing import Any

import watched  # type: ignore[import-not-found]  # It lies beside, where the program runs.
from django.http import JsonResponse
from django.urls import path

sys.path.append(os.environ["TOUCHED"])
import touched  # type: ignore[import-not-found]  # noqa: F401 - the reloader looks at it.

SECRET_KEY = "none"
DEBUG = True
USE_TZ = True
ROOT_URLCONF = "django_site"
ALLOWED_HOSTS = ["127.0.0.1"]
WSGI_APPLICATION = "django_wsgi.application"


def state(_: Any) -> Any:
    return JsonResponse(watched.state())


def leak(request: Any) -> Any:
    if int(request.GET["pid"]) != os.getpid():
        return JsonResponse({}, status=409)
    watched.leak_threads(int(request.GET["n"]))
    return JsonResponse(watched.state())


urlpatterns = [path("", state), path("leak", leak)]
