"""Tasks that no loop is asked to create have a creator and a test as all others."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest

from otel_leaks.origins import recorder
from otel_leaks.origins.scopes import Scope
from support.leaks import forever

pytestmark = pytest.mark.unwatched

ON_3_12 = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks come with 3.12")
IN_PYTHON: Any = getattr(asyncio.tasks, "_PyTask", None)
EAGER: Any = getattr(asyncio, "eager_task_factory", None)


def of_class() -> asyncio.Task[None]:
    return asyncio.Task(forever())


def of_class_in_python() -> asyncio.Task[None]:
    made: asyncio.Task[None] = IN_PYTHON(forever(), loop=asyncio.get_running_loop())
    return made


def of_class_eager() -> asyncio.Task[None]:
    task: Any = asyncio.Task
    made: asyncio.Task[None] = task(forever(), loop=asyncio.get_running_loop(), eager_start=True)
    return made


def of_eager_factory() -> asyncio.Task[None]:
    asyncio.get_running_loop().set_task_factory(EAGER)
    return asyncio.create_task(forever())


def of_own_factory() -> asyncio.Task[None]:
    def factory(loop: Any, coro: Any, **more: Any) -> Any:
        return asyncio.Task(coro, loop=loop, **more)

    asyncio.get_running_loop().set_task_factory(factory)
    return asyncio.create_task(forever())


WAYS = [
    of_class,
    of_class_in_python,
    pytest.param(of_class_eager, marks=ON_3_12),
    pytest.param(of_eager_factory, marks=ON_3_12),
    of_own_factory,
]


def new_loop(module: str) -> asyncio.AbstractEventLoop:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    loop: asyncio.AbstractEventLoop = importlib.import_module(module).new_event_loop()
    return loop


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="nobody sees the tasks made in C")
@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
@pytest.mark.parametrize("way", WAYS)
def test_a_task_has_its_creator_and_its_scope(
    way: Callable[[], asyncio.Task[None]], module: str
) -> None:
    if module == "uvloop" and way is of_eager_factory:
        pytest.skip("uvloop hands that factory an argument that it does not take")
    loop = new_loop(module)

    async def main() -> tuple[Any, Any, int]:
        scope = Scope("a test")
        token = scope.enter()
        task = way()
        scope.leave(token)
        found = recorder.starts.origin_of(task), recorder.starts.scope_of(task), scope.created
        task.cancel()
        await asyncio.wait([task])
        return (*found[:1], found[1] is scope, found[2])

    recorder.starts.open()
    try:
        origin, is_in_scope, began = loop.run_until_complete(main())
    finally:
        recorder.starts.close()
        loop.close()
    assert is_in_scope
    assert origin is not None
    assert (origin.function, origin.scope, began) == (f"{__name__}.{way.__name__}", "a test", 1)
    lines, first = inspect.getsourcelines(way)
    assert first < origin.line < first + len(lines)


@ON_3_12
def test_what_an_eager_task_creates_at_once_has_its_own_creator() -> None:
    async def parent() -> asyncio.Task[None]:
        child = asyncio.create_task(forever())
        await asyncio.sleep(0)
        return child

    async def main() -> str:
        asyncio.get_running_loop().set_task_factory(EAGER)
        child = await asyncio.create_task(parent())
        origin = recorder.starts.origin_of(child)
        child.cancel()
        return origin.function if origin is not None else ""

    recorder.starts.open()
    try:
        found = asyncio.run(main())
    finally:
        recorder.starts.close()
    assert found.endswith(".<locals>.parent")


def test_the_registry_is_put_back() -> None:
    from otel_leaks.origins.direct import registry

    before = vars(registry()).get("add")
    recorder.starts.open()
    recorder.starts.close()
    assert vars(registry()).get("add") is before
