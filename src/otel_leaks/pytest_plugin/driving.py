"""Lets time pass between two looks, and the loops run that stand still meanwhile."""

from __future__ import annotations

import sys

from otel_leaks.origins.recorder import starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.runtime import native
from otel_leaks.runtime.running import running_loop


def drive(scope: Scope, delay_s: float) -> None:
    """
    Let time pass, and the loops run on which the scope's tasks are pending.

    Between tests the loops of pytest-asyncio and anyio stand still and are open; what is
    about to end on them needs them to run. A loop that another thread made or ran is left to
    that thread, which may run it call by call.
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
