"""Lets time pass between two looks, and runs the loops that stand still meanwhile."""

from __future__ import annotations

import sys

from otel_leaks.origins.recorder import starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.runtime import native
from otel_leaks.runtime.running import running_loop


def drive(scope: Scope, delay_s: float) -> None:
    """
    Let time pass, and run the loops on which the scope's tasks are pending.

    Between tests the loops of pytest-asyncio and anyio are open and stand still, but tasks that
    are about to end need them to run. A loop that another thread created or ran is left to that
    thread, which may run it one call at a time.
    """
    if "asyncio.events" not in sys.modules or running_loop() is not None:
        native.sleep(delay_s)
        return
    loops = starts.loops_of_this_thread(scope)
    if not loops:
        native.sleep(delay_s)
        return
    from otel_leaks.runtime.driving import run_for

    run_for(delay_s, loops)
