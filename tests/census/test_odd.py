"""Objects that define how they answer: a census asks them nothing, and counts all others."""

from __future__ import annotations

import asyncio
import collections.abc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from otel_leaks.census import Source
from otel_leaks.census.tasks import TaskSource
from otel_leaks.census.threads import ThreadSource
from otel_leaks.ignores import Ignore
from otel_leaks.model import Population
from support.leaks import ONLY_LEAKS, forever, look, standing, stopped_loop

HERE = __name__

pytestmark = pytest.mark.allow_leaks(reason="tasks stand while they are counted")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with stopped_loop() as loop:
        yield loop


@pytest.fixture
def source() -> Iterator[TaskSource]:
    source = TaskSource()
    source.open()
    yield source
    source.close()


counting = False
"""Whether a census is being taken: outside of it asyncio and threading may ask."""


def asked(*_: Any, **__: Any) -> Any:
    if counting:
        raise AssertionError("code of the application was called")


def answers_nothing(base: type, *names: str) -> type:
    """Return a class below *base* each of whose *names* raises when a census asks for it."""

    def answer(name: str) -> property:
        def get(thing: Any) -> Any:
            asked()
            return getattr(super(odd, thing), name)

        return property(get, lambda *_: None)

    def compare(one: object, other: object) -> bool:
        asked()
        return one is other

    members = {name: answer(name) for name in names}
    more = {"__eq__": compare, "__hash__": base.__hash__, "__repr__": lambda _: "odd"}
    odd = type("Odd", (base,), {**members, **more, "__module__": HERE})
    return odd


def read(source: Source, *ignores: Ignore) -> Population:
    global counting
    counting = True
    try:
        return source.read(look(*ignores))
    finally:
        counting = False


OddTask = answers_nothing(
    asyncio.Task,
    *("done", "get_coro", "get_name", "get_context", "get_stack", "get_loop", "cancelling"),
)


def test_a_task_whose_methods_raise_is_counted_and_explained(
    source: TaskSource, loop: asyncio.AbstractEventLoop
) -> None:
    tasks = [OddTask(forever(), loop=loop, name=name) for name in ("odd", "odd")]
    found = read(source)
    (site,) = found.sites
    assert (found.count, site.function, site.count) == (2, "support.leaks.forever", 2)
    assert site.sample is not None
    assert (site.sample.name, found.unreadable) == ("odd", ())
    assert len(tasks) == 2


class Foreign:
    """A task of another event loop's, as ``asyncio._register_task`` is documented for."""

    done = get_coro = get_name = property(asked)


class Hiding(asyncio.tasks._PyTask):  # type: ignore[name-defined,misc]
    """Keeps its coroutine elsewhere, so that only it can say which that is."""

    _coro = property(
        lambda task: asked() or vars(task)["hidden"],
        lambda task, coro: vars(task).update(hidden=coro),
    )


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="3.14 keeps tasks of other makes where only it sees them"
)
@pytest.mark.parametrize("make", [lambda _: Foreign(), lambda loop: Hiding(forever(), loop=loop)])
def test_a_task_that_only_its_own_code_can_read_hides_no_other(
    source: TaskSource, loop: asyncio.AbstractEventLoop, make: Any
) -> None:
    tasks = [loop.create_task(forever()) for _ in range(300)]
    odd = make(loop)
    asyncio._register_task(odd)
    try:
        found = read(source)
    finally:
        if isinstance(odd, Foreign):
            asyncio._unregister_task(odd)  # type: ignore[arg-type]
    assert (found.count, found.unreadable) == (300, (f"{HERE}.{type(odd).__qualname__}",))
    assert len(tasks) == 300


def test_a_task_of_another_make_that_raises_hides_none_of_asyncios(
    source: TaskSource, loop: asyncio.AbstractEventLoop
) -> None:
    tasks = [loop.create_task(forever()) for _ in range(300)]
    odd = Foreign()
    asyncio._register_task(odd)  # type: ignore[arg-type]
    try:
        assert read(source).count == 300
    finally:
        asyncio._unregister_task(odd)  # type: ignore[arg-type]
    assert len(tasks) == 300


class Lazy(collections.abc.Coroutine[Any, Any, None]):
    """A proxy of a coroutine, that raises for what it does not know."""

    def __init__(self) -> None:
        self.inner = forever()

    def send(self, value: Any) -> Any:
        return self.inner.send(value)

    def throw(self, *error: Any) -> Any:
        return self.inner.throw(*error)

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Any:
        return self.inner.__await__()

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name} is not loaded")


async def awaits(thing: Any) -> None:
    await thing


def test_a_coroutine_whose_attributes_raise_is_counted_by_its_class(
    source: TaskSource, loop: asyncio.AbstractEventLoop
) -> None:
    tasks = [loop.create_task(forever()) for _ in range(300)]
    tasks += [loop.create_task(Lazy()), loop.create_task(awaits(Lazy()))]
    loop.call_soon(loop.stop)
    loop.run_forever()
    counted = {site.function: site.count for site in read(source).sites}
    assert counted == {"support.leaks.forever": 300, f"{HERE}.Lazy": 1, f"{HERE}.awaits": 1}
    assert len(tasks) == 302


OddThread = answers_nothing(
    threading.Thread, *("ident", "name", "daemon", "is_alive", "native_id", "getName")
)


def test_a_thread_whose_properties_raise_is_counted_and_explained() -> None:
    stop = threading.Event()
    odd = OddThread(target=stop.wait)
    odd.start()
    with standing(3):
        found = read(ThreadSource())
    stop.set()
    odd.join(20)
    counted = {site.function: site.count for site in found.sites}
    assert counted["support.leaks.stuck"] == 3
    assert counted["threading.Event.wait"] == 1


def test_a_thread_whose_name_hangs_holds_nobody_up() -> None:
    hangs = threading.Event()

    class Remote(threading.Thread):
        """Asks a remote side for its name."""

        @property
        def name(self) -> str:
            hangs.wait()
            return "remote"

        @name.setter
        def name(self, value: str) -> None: ...

    stop = threading.Event()
    remote = Remote(target=stop.wait, daemon=True)
    remote.start()
    with standing(3):
        found = read(ThreadSource(), ONLY_LEAKS)
    stop.set()
    hangs.set()
    assert found.count == 3
