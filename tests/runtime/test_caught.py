"""Handlers that catch a cancellation, as this Python compiles them."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from asyncio import CancelledError
from types import CodeType
from typing import Any

import pytest

from otel_leaks.runtime.bytecode.caught import MAX_CODE_BYTES, Caught, caught_at


def compiled(body: str) -> CodeType:
    """Compile the body of a coroutine function, its first line being the second."""
    names: dict[str, Any] = {
        "asyncio": asyncio,
        "contextlib": contextlib,
        "CancelledError": CancelledError,
    }
    exec(f"async def function():\n{textwrap.indent(textwrap.dedent(body), '    ')}", names)
    code: CodeType = names["function"].__code__
    return code


def line(body: str, *, is_outermost: bool = False) -> int | None:
    """Return the line of the body at which it catches."""
    found = caught_at(compiled(body.strip("\n")), is_outermost=is_outermost)
    return found.line - 1 if found is not None else None


SWALLOWS = {
    "by its name": (
        """
        while True:
            try:
                await asyncio.sleep(1)
            except CancelledError:
                pass
        """,
        4,
    ),
    "as an attribute": (
        """
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError as error:
                print(error)
        """,
        4,
    ),
    "among others": (
        """
        while True:
            try:
                await asyncio.sleep(1)
            except ValueError:
                raise
            except (TypeError, asyncio.CancelledError):
                await asyncio.sleep(2)
        """,
        6,
    ),
    "by BaseException": (
        """
        while True:
            try:
                await asyncio.sleep(1)
            except BaseException as error:
                if closed:
                    raise
        """,
        4,
    ),
    "without a name": (
        """
        while True:
            try:
                await asyncio.sleep(1)
            except:
                pass
        """,
        4,
    ),
    "by anyio's function": (
        """
        while True:
            try:
                await asyncio.sleep(1)
            except anyio.get_cancelled_exc_class():
                pass
        """,
        4,
    ),
    "by suppress": (
        """
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
        """,
        2,
    ),
}
PASSES_ON = {
    "it raises again": """
        try:
            await asyncio.sleep(1)
        except CancelledError:
            print()
            raise
        """,
    "it raises another": """
        try:
            await asyncio.sleep(1)
        except CancelledError:
            raise TimeoutError from None
        """,
    "it catches others": """
        while True:
            try:
                await asyncio.sleep(1)
            except Exception:
                pass
        """,
    "it cleans up": """
        try:
            await asyncio.sleep(1)
        finally:
            await asyncio.sleep(1)
        """,
    "it waits nowhere in it": """
        try:
            print()
        except BaseException:
            pass
        await asyncio.sleep(1)
        """,
    "a context manager may": """
        while True:
            async with timeout(1):
                await asyncio.sleep(1)
        """,
    "suppress of others": """
        while True:
            with contextlib.suppress(ValueError):
                await asyncio.sleep(1)
        """,
    "an iteration": """
        async for each in iterator:
            await each
        """,
}


@pytest.mark.parametrize(("body", "expected"), SWALLOWS.values(), ids=SWALLOWS)
def test_a_handler_that_goes_on_is_found_by_its_line(body: str, expected: int) -> None:
    assert line(body) == expected
    assert line(body, is_outermost=True) == expected


@pytest.mark.parametrize("body", PASSES_ON.values(), ids=PASSES_ON)
def test_a_handler_that_passes_it_on_is_none(body: str) -> None:
    assert line(body) is None


@pytest.mark.parametrize("leaves", ["break", "return", "pass"])
def test_to_return_is_to_go_on_for_an_inner_function_alone(leaves: str) -> None:
    loop = "while True:\n    " if leaves == "break" else "if True:\n    "
    body = (
        f"{loop}try:\n        await asyncio.sleep(1)\n"
        f"    except CancelledError:\n        {leaves}\n"
    )
    assert line(body) == 4
    assert line(body, is_outermost=True) is None


def test_the_handler_around_the_place_is_preferred() -> None:
    async def function() -> None:
        try:
            await asyncio.sleep(1)
        except CancelledError:
            print()
        try:
            await asyncio.get_running_loop().create_future()
        except CancelledError:
            print()
        await asyncio.sleep(1)

    async def main() -> tuple[Any, Any]:
        task = asyncio.ensure_future(function())
        await asyncio.sleep(0)
        task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        frame = task.get_stack()[0]
        found = caught_at(frame.f_code, frame.f_lasti)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        frame = task.get_stack()[0]
        task_done = caught_at(frame.f_code, frame.f_lasti)
        task.cancel()
        return found, task_done

    first = function.__code__.co_firstlineno
    around, elsewhere = asyncio.run(main())
    assert (around.line - first, around.is_around) == (7, True)
    assert elsewhere.is_around is False


def test_what_asyncio_catches_and_passes_on_later_is_nobodys() -> None:
    swallows = compiled(SWALLOWS["by its name"][0].strip("\n"))
    asleep = compiled("await asyncio.sleep(1)")
    caught = Caught()
    assert caught.within([(asleep, -1)]) is None
    assert caught.within([(swallows, -1), (asleep, -1)]) == (0, 5)
    assert caught.within([(swallows, -1), (None, -1)]) == (0, 5)
    own = swallows.replace(co_filename=asyncio.__file__)
    assert caught.within([(swallows, -1), (own, -1)]) == (0, 5)
    offset = next(iter(range(len(own.co_code))))
    around = [at for at in range(offset, len(own.co_code), 2) if _is_around(own, at)]
    assert caught.within([(swallows, -1), (own, around[0])]) is None


def _is_around(code: CodeType, offset: int) -> bool:
    found = caught_at(code, offset)
    return found is not None and found.is_around


def test_a_very_long_function_is_not_read() -> None:
    body = "try:\n    await asyncio.sleep(1)\nexcept CancelledError:\n    pass\n"
    assert caught_at(compiled(body)) is not None
    code = compiled(body + "print(1, 2, 3, 4)\n" * 1000)
    assert len(code.co_code) > MAX_CODE_BYTES
    assert caught_at(code) is None


@pytest.mark.usefixtures("unmeasured")
def test_answers_do_not_keep_code_alive() -> None:
    import gc
    import weakref

    code = compiled(SWALLOWS["by its name"][0].strip("\n"))
    caught = Caught()
    assert caught.within([(code, -1)]) is not None
    gone = weakref.ref(code)
    del code
    gc.collect()
    assert gone() is None
