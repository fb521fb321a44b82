"""Many tasks are read in one step: which are pending, which have ended, which are gone."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest

from otel_leaks.runtime.tasks import Pending, pending, plain_pending


async def ends() -> None:
    pass


async def waits(gate: asyncio.Event) -> None:
    await gate.wait()


class Odd(asyncio.tasks._PyTask):  # type: ignore[name-defined, misc]
    """A task that is written in Python, as a few libraries have them."""


@pytest.mark.parametrize("has_odd", [False, True], ids=["made in C", "one in Python"])
@pytest.mark.parametrize("has_gone", [False, True], ids=["all live", "one is gone"])
def test_tasks_that_have_ended_are_told_from_pending_ones(*, has_gone: bool, has_odd: bool) -> None:
    async def main() -> tuple[Pending, list[Any], list[Any]]:
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()
        tasks: list[Any] = [
            asyncio.ensure_future(each)
            for each in (waits(gate), ends(), waits(gate), ends(), waits(gate), ends())
        ]
        if has_odd:
            tasks += [Odd(waits(gate), loop=loop), Odd(ends(), loop=loop)]
        waiting, ended = tasks[::2], tasks[1::2]
        await asyncio.wait(ended)
        refs = [weakref.ref(each) for each in tasks]
        if has_gone:
            gone = asyncio.ensure_future(ends())
            await gone
            refs.insert(2, weakref.ref(gone))
            del gone
            await asyncio.sleep(0)  # The turn that woke this task holds it to its end.
            assert refs[2]() is None
        found = pending(refs)
        assert (plain_pending(refs) is None) == has_odd
        gate.set()
        await asyncio.wait(waiting)
        return found, waiting, ended

    found, waiting, ended = asyncio.run(main())
    assert [ref() for ref in found.refs] == waiting
    assert [ref() for ref in found.ended if ref() is not None] == ended
    assert set(found.keys) == set(found.codes) == {id(waits.__code__)}
    assert len(found.keys) == len(waiting)
