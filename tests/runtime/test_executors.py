from __future__ import annotations

import queue
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_leaks.runtime import executors, glimpse


@pytest.fixture
def before_each_drain(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Return what has something done where the threads can switch: right before each drain."""

    def use(act: Callable[[], None]) -> None:
        def drained(make: Callable[[], Iterator[Any]]) -> list[Any]:
            made = make()
            act()
            return list(made)

        monkeypatch.setattr(executors, "drained", drained)
        monkeypatch.setattr(glimpse, "drained", drained)

    return use


def test_workers_are_read_though_one_more_begins_right_before(
    before_each_drain: Callable[[Callable[[], None]], None],
) -> None:
    jobs: queue.SimpleQueue[object] = queue.SimpleQueue()
    threads = [threading.Thread() for _ in range(3)]
    served: dict[weakref.ref[Any], Any] = {weakref.ref(threads[0]): jobs}

    def begin() -> None:
        served[weakref.ref(threads[len(served)])] = jobs

    before_each_drain(begin)
    expected = [(weakref.ref(each), weakref.ref(jobs), 0) for each in threads]
    assert executors.served_queues(served) == expected[:2]
    assert executors.served_queues(served) == expected


def test_the_limiter_of_a_loop_is_read_though_another_loop_gets_one_right_before(
    monkeypatch: pytest.MonkeyPatch,
    before_each_drain: Callable[[Callable[[], None]], None],
) -> None:
    lowlevel = pytest.importorskip("anyio.lowlevel")
    backend = pytest.importorskip("anyio._backends._asyncio")
    limiter = backend.CapacityLimiter(7)

    class Loop:
        pass

    loops = [Loop() for _ in range(40)]
    data = {weakref.ref(loops[0]): {backend._default_thread_limiter: limiter}}
    monkeypatch.setattr(lowlevel, "_run_vars", types.SimpleNamespace(data=data))

    def begin() -> None:
        data[weakref.ref(loops[len(data)])] = {}

    before_each_drain(begin)
    worker = threading.Thread()
    vars(worker).update(workers={worker}, loop=loops[0])
    served = executors.anyio_served(weakref.ref(worker))
    assert served is not None
    assert (served.limit, served.queued) == (7, 0)
