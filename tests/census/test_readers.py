"""Whatever reads bytecode reads that of anything: what CPython compiles, and what tools make."""

from __future__ import annotations

import ast
import contextlib
import dis
import os
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from otel_leaks.census import CensusTaker
from otel_leaks.ignores import BUILT_IN, Ignores
from otel_leaks.model import Census
from otel_leaks.runtime.bytecode.endless import Exits, is_endless
from otel_leaks.runtime.bytecode.lock_owners import may_wait, waits_for_dead
from otel_leaks.runtime.code import line_of
from otel_leaks.runtime.timeouts import wakes_itself
from otel_leaks.runtime.wrappers import take_unread, wrapper_of
from support.leaks import ONLY_LEAKS, Stand, forever, settle, standing, stopped_loop, stuck

Reader = Callable[[CodeType, int], object]

NOBODY = -1
"""The ident of no thread."""


def reads_wrapper(code: CodeType, _: int) -> None:
    wrapper_of(code)
    unread = take_unread()
    if unread:
        raise ValueError(unread)


READERS: dict[str, Reader] = {
    "endless": is_endless,
    "may wait": may_wait,
    "waits for dead": lambda code, at: waits_for_dead(NOBODY, code, at),
    "wakes itself": lambda code, at: wakes_itself("threading.Condition.wait", code, at),
    "line": line_of,
    "wrapper": reads_wrapper,
}

ANNOTATED = """
import threading
limit: int = 20
names: dict[str, int] = {}
class Settings:
    port: int = 80
    host: "str"
    class Inner:
        deep: int
for number in range(3):
    with threading.Lock():
        limit += number
    try:
        names["a"]
    except KeyError:
        pass
    finally:
        limit: int = 5
while True:
    if limit:
        break
"""

EVERYTHING = """
from __future__ import annotations
import asyncio
class Meta(type):
    def __call__(cls, *args, **kwargs):
        return super().__call__(*args, **kwargs)
class Model(metaclass=Meta):
    __slots__ = ("a", "b")
    @property
    def both(self): return [self.a for _ in range(3) if self.b], {x: y for x, y in ()}, {*()}
    async def __aenter__(self): return self
    async def __aexit__(self, *error): await error[0]
def generator(x, /, y, *, z=1):
    received = yield x
    yield from (i * y for i in range(z))
    return received
async def agenerator():
    async for each in agenerator():
        yield each
    async with Model() as a, Model() as b:
        yield [x async for x in agenerator() if await x]
async def wraps(coro, *rest, **others):
    given = lambda: coro
    match rest:
        case [first, *_]: return await first
        case {"a": b, **c}: return await c
    try: return await coro
    except* ValueError if False else OSError: raise
    finally: del coro
""".replace("    except* ValueError if False else OSError: raise\n", "    except OSError: raise\n")


def nested(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those inside it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from nested(each)


def failures(codes: Iterable[CodeType], most: int | None = None) -> list[tuple[str, str, str]]:
    """Ask each reader at *most* places of each code object, evenly spread; at each for None."""
    found = []
    for code in codes:
        places = [-1, *(each.offset for each in dis.get_instructions(code))]
        places = places[:: max(1, len(places) // most)] if most is not None else places
        for name, reader in READERS.items():
            try:
                for at in places:
                    reader(code, at)
            except Exception as error:
                found.append((name, code.co_name, repr(error)))
    return found


def codes_of_stdlib() -> Iterator[CodeType]:
    """Compile asyncio, what concerns threads, and one file of 25 of the standard library."""
    root = Path(os.__file__).parent
    for file in sorted(root.glob("**/*.py")):
        inside = file.relative_to(root).parts
        if inside[0] in {"idlelib", "lib2to3", "site-packages", "test"}:
            continue
        named = inside[0] in {"asyncio", "concurrent", "queue.py", "threading.py"}
        if not named and zlib.crc32("/".join(inside).encode()) % 25:
            continue
        with contextlib.suppress(SyntaxError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from nested(compile(file.read_bytes(), str(file), "exec"))


@pytest.mark.parametrize("source", [ANNOTATED, EVERYTHING], ids=["annotated", "everything"])
@pytest.mark.parametrize("file", ["application.py", os.__file__], ids=["own", "library"])
def test_each_reader_reads_each_place_of_each_kind_of_code(source: str, file: str) -> None:
    assert failures(nested(compile(source, file, "exec"))) == []


def test_each_reader_reads_what_is_evaluated(tmp_path: Path) -> None:
    codes = [
        compile("[x async for x in y]", os.__file__, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT),
        compile("await x", os.__file__, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT),
        (lambda: 1).__code__,
        compile("", "", "exec"),
    ]
    assert failures(codes) == []


def test_each_reader_reads_the_standard_library() -> None:
    assert failures(codes_of_stdlib(), most=3) == []


def test_what_has_no_code_wraps_nothing_and_has_no_end() -> None:
    assert wrapper_of(None) is None
    assert not Exits().any_endless([(None, 0)], lambda: None)


# Bytecode that a tool made, and that dis can't read: it runs all the same


def unreadable(function: FunctionType, file: str) -> None:
    """Append an instruction that is never reached and refers to a variable that is not there."""
    code = function.__code__
    tail = bytes([dis.opmap["LOAD_FAST"], 250])
    function.__code__ = code.replace(co_code=code.co_code + tail, co_filename=file)
    with pytest.raises(IndexError):
        list(dis.get_instructions(function.__code__))


def take() -> Census:
    taker = CensusTaker(ignores=Ignores((*BUILT_IN, ONLY_LEAKS)), max_sites=10)
    taker.open()
    try:
        return taker.take()
    finally:
        taker.close()


def test_a_thread_whose_code_cannot_be_read_is_counted_and_shown_without_a_hint() -> None:
    def stands(stand: Stand) -> None:
        while True:
            stuck(stand)
            return

    unreadable(stands, __file__)  # type: ignore[arg-type]
    with standing(2, stands):
        census = take()
    threads = census.of("thread")
    assert threads is not None
    (site,) = threads.sites
    assert (site.count, site.sample is not None, census.failures) == (2, True, ())
    assert {(each.kind, each.error_type) for each in census.unjudged} == {("thread", "IndexError")}


@pytest.mark.parametrize("file", [__file__, os.__file__], ids=["own", "library"])
@pytest.mark.allow_leaks(reason="tasks are left on loops, which take them along")
def test_tasks_whose_code_cannot_be_read_are_counted_under_their_name(file: str) -> None:
    async def traced(coro: Coroutine[Any, Any, None]) -> None:
        await coro

    unreadable(traced, file)  # type: ignore[arg-type]
    with stopped_loop() as loop:
        tasks = [loop.create_task(traced(forever())) for _ in range(3)]
        tasks.append(loop.create_task(forever()))
        loop.run_until_complete(settle())
        census = take()
    found = census.of("asyncio_task")
    assert found is not None
    counted = {site.function.rpartition(".")[2]: site.count for site in found.sites}
    assert (counted, census.failures) == ({"traced": 3, "forever": 1}, ())
    assert {(each.kind, each.error_type) for each in census.unjudged} == {
        ("asyncio_task", "IndexError")
    }
    assert len(tasks) == 4


def test_threads_are_counted_in_a_program_whose_main_module_has_annotations() -> None:
    program = """
import threading
from otel_leaks.census import CensusTaker
from otel_leaks.ignores import Ignores

limit: int = 20
found = []

def look():
    taker = CensusTaker(ignores=Ignores(), max_sites=10)
    taker.open()
    found.append(taker.take())

looks = threading.Thread(target=look)
looks.start()
while looks.is_alive():
    looks.join()
(census,) = found
print(census.of("thread").count, census.failures, census.unjudged)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 () ()\n", "")
