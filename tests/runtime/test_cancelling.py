"""Runners are looked into before they cancel, where they have something to cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from otel_leaks.runtime.cancelling import wrap_runners
from otel_leaks.runtime.patches import Patches

pytestmark = pytest.mark.allow_leaks(reason="what a runner cancels is what is looked at here")


@pytest.fixture
def looks() -> Iterator[list[Any]]:
    seen: list[Any] = []
    patches = Patches()
    wrap_runners(patches, set(), seen.append)
    yield seen
    patches.restore()


async def numbers() -> AsyncIterator[int]:
    yield 1
    yield 2


def test_a_runner_is_looked_into_that_has_a_task_to_cancel(looks: list[Any]) -> None:
    async def main() -> None:
        kept.append(asyncio.create_task(asyncio.Event().wait()))

    kept: list[object] = []
    asyncio.run(main())
    assert len(looks) == 1


def test_a_runner_is_looked_into_that_has_a_generator_to_close(looks: list[Any]) -> None:
    async def main() -> None:
        generator = numbers()
        kept.append(generator)
        await generator.__anext__()

    kept: list[object] = []
    asyncio.run(main())
    assert len(looks) == 1


def test_a_runner_with_nothing_to_cancel_is_not_looked_into(looks: list[Any]) -> None:
    async def main() -> None:
        async for _ in numbers():
            await asyncio.create_task(asyncio.sleep(0))

    asyncio.run(main())
    assert looks == []
