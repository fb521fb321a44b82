from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def collects_when_told() -> Iterator[None]:
    """Let nothing be collected by itself meanwhile."""
    gc.disable()
    yield
    gc.enable()
