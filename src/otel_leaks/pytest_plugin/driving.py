"""Lets time pass between two looks, and the loops run that stand still meanwhile."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_leaks.census.origins import Scope


def drive(scope: Scope, delay_s: float) -> None:
    """
    Let time pass, and the loops run on which the scope's tasks are pending.

    Between tests the loops of pytest-asyncio and anyio stand still and are open; what is
    about to end on them needs them to run.
    """
    from otel_leaks.census.origins import starts

    events = sys.modules.get("asyncio.events")
    driven = False
    if events is not None and events._get_running_loop() is None:
        loops = {
            task.get_loop()
            for task in starts.noted("asyncio_task")
            if not task.done() and scope.holds(starts.scope_of(task))
        }
        for loop in loops:
            if not loop.is_running() and not loop.is_closed():
                driven = _run(loop, delay_s) or driven
    if not driven:
        time.sleep(delay_s)


def _run(loop: Any, delay_s: float) -> bool:
    import asyncio

    pause = loop.create_task(asyncio.sleep(delay_s))
    try:
        loop.run_until_complete(pause)
    except RuntimeError:
        # What was left stopped the loop; the next look may go on from there.
        pause.cancel()
        return False
    return True
