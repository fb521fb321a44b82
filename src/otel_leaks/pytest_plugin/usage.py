"""Mistakes of the user, reported as pytest reports them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def usage(what: str, make: Callable[[], Any]) -> Any:
    """Return the result of *make*; report what it objects to as a usage error."""
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{what}: {error}") from None
