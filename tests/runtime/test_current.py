from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any

from otel_leaks.runtime.current import running_task
from otel_leaks.runtime.loop_state import task_at_work
from otel_leaks.runtime.running import current_task


def test_the_running_task_is_that_of_the_calling_thread() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        assert running_task() is weakref.ref(task)
        found = [running_task()]
        thread = threading.Thread(target=lambda: found.append(running_task()))
        thread.start()
        thread.join(20)
        assert found[1] is None

    asyncio.run(main())
    assert running_task() is None


def test_a_callback_of_a_loop_runs_in_no_task() -> None:
    loop = asyncio.new_event_loop()
    found: list[weakref.ref[object] | None] = []
    loop.call_soon(lambda: found.append(running_task()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert found == [None]


def test_a_running_task_may_be_of_the_class_in_python() -> None:
    kind: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
    found: list[object] = []

    async def main() -> None:
        ref = task_at_work(weakref.ref(asyncio.get_running_loop()))
        found.extend([current_task(), ref() if ref is not None else None])

    loop = asyncio.new_event_loop()
    try:
        task = kind(main(), loop=loop)
        loop.run_until_complete(task)
        assert found == [task, task]
        loop.call_soon(lambda: found.append(current_task()))
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    assert found == [task, task, None]
