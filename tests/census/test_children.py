from __future__ import annotations

import asyncio
import concurrent.futures.process
import gc

import pytest

from otel_leaks.testing import verify_none

assert concurrent.futures.process  # Its pools are looked for once it is imported.


def test_a_look_at_a_scope_does_not_go_through_the_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    # In a process with a million objects that takes 20 ms, for each test of a suite.
    walked: list[str] = []

    def walk(*_: object) -> list[object]:
        walked.append("the heap")
        return []

    async def main() -> None:
        async with verify_none():
            await asyncio.create_task(asyncio.sleep(0))

    # On 3.14 the first scope that opens looks for the loops that live, once.
    with verify_none():
        monkeypatch.setattr(gc, "get_referrers", walk)
        monkeypatch.setattr(gc, "get_objects", walk)
        asyncio.run(main())
    assert walked == []
