"""
What a census of many tasks costs with and without what ``uncancelled`` and ``retained`` need.

    python benchmarks/refusals.py [TASKS [FINISHED]]

Prints microseconds of CPU for each pending task, both in one run and in turn. FINISHED tasks more
have finished, and a list keeps them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from unittest import mock

from otel_leaks.census import CensusTaker
from otel_leaks.census.refusals import Refusals
from otel_leaks.census.retained import RetainedTasks
from otel_leaks.ignores import BUILT_IN, Ignores

ROUNDS = 7
NEEDED: dict[type, tuple[str, ...]] = {
    Refusals: ("note", "note_uncounted", "stand"),
    RetainedTasks: ("begin", "note", "sample"),
}


async def innermost(gate: asyncio.Future[None]) -> None:
    await gate


async def outermost(gate: asyncio.Future[None]) -> None:
    await innermost(gate)


async def ends() -> None:
    pass


async def main(count: int, finished: int) -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    tasks = [asyncio.ensure_future(outermost(gate)) for _ in range(count)]
    kept = [asyncio.ensure_future(ends()) for _ in range(finished)]
    # Those that are pending begin as well, and wait two coroutines deep.
    await asyncio.sleep(0)
    if kept:
        await asyncio.wait(kept)
    takers = [CensusTaker(ignores=Ignores(BUILT_IN), max_sites=10) for _ in range(2)]
    spent: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        spent[0].append(takers[0].take().cpu_s)
        with contextlib.ExitStack() as without:
            for owner, names in NEEDED.items():
                for name in names:
                    without.enter_context(mock.patch.object(owner, name, _none))
            spent[1].append(takers[1].take().cpu_s)
    for name, some in zip(("with", "without"), spent, strict=True):
        print(f"{name:8} {min(some) * 1e6 / count:.3f} us a task")
    gate.set_result(None)
    await asyncio.wait([*tasks, *kept])


def _none(*_: object) -> None:
    """Do nothing."""


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    asyncio.run(main(*(*given, *(100_000, 0)[len(given) :])))
