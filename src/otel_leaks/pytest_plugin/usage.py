"""Mistakes of the user, reported as pytest reports them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def usage(what: str, make: Callable[[], Any]) -> Any:
    """Return what *make* makes; what it objects to is the user's mistake."""
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{what}: {error}") from None
