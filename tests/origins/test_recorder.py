"""Where things began, and to whom they are charged."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from otel_leaks.origins import recorder as origins
from otel_leaks.origins.notes import MAX_DEPARTED
from otel_leaks.origins.recorder import Starts, current_scope
from otel_leaks.origins.scopes import Scope, scope_of_context
from otel_leaks.origins.stand_ins import Child
from otel_leaks.runtime.heap import living
from otel_leaks.runtime.names import name_of, program_of
from support.leaks import Stand, forever, settle, standing, stopped_loop

pytestmark = pytest.mark.unwatched


@pytest.fixture
def starts() -> Iterator[Starts]:
    """Give the notes of the process, open: what is wrapped is global."""
    origins.starts.open()
    yield origins.starts
    origins.starts.close()


@pytest.fixture
def scope(starts: Starts) -> Iterator[Scope]:
    scope = Scope("a test")
    token = scope.enter()
    yield scope
    scope.leave(token)


def function_of(starts: Starts, thing: object) -> str:
    origin = starts.origin_of(thing)
    return origin.function if origin is not None else "?"


def test_a_scope_holds_itself_and_what_is_inside() -> None:
    outer = Scope("outer")
    inner = Scope("inner", outer)
    inner.count()
    assert [outer.holds(inner), inner.holds(outer), outer.holds(outer), outer.holds(None)] == [
        *(True, False, True, False)
    ]
    assert (outer.created, inner.created) == (1, 1)


def test_a_scope_that_is_left_in_another_context_is_no_error() -> None:
    scope = Scope()
    token = contextvars.copy_context().run(scope.enter)
    scope.leave(token)
    assert current_scope() is None


def test_a_thread_belongs_to_the_scope_that_started_it(starts: Starts, scope: Scope) -> None:
    with standing(1) as (thread,):
        assert starts.scope_of(thread) is scope
        assert function_of(starts, thread) == "support.leaks.standing"
        assert starts.noted("thread") == [thread]


def test_a_thread_of_a_thread_belongs_to_the_same_scope(starts: Starts, scope: Scope) -> None:
    inner: list[threading.Thread] = []

    def outer() -> None:
        inner.append(threading.Thread(target=int))
        inner[0].start()
        inner[0].join()

    thread = threading.Thread(target=outer)
    thread.start()
    thread.join()
    assert starts.scope_of(inner[0]) is scope


def test_a_job_runs_in_the_scope_that_submitted_it(starts: Starts) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_scope).result(20) is None
        scope = Scope()
        token = scope.enter()
        inside = pool.submit(current_scope)
        scope.leave(token)
        assert inside.result(20) is scope
        assert pool.submit(current_scope).result(20) is None
        assert starts.what(inside) == "otel_leaks.origins.recorder.current_scope"


def test_a_job_passes_on_what_it_was_given_and_what_it_raises(scope: Scope) -> None:
    def fail(*args: int, **kwargs: int) -> None:
        raise KeyError(args, kwargs)

    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyError) as raised:
        pool.submit(fail, 1, two=2).result(20)
    assert raised.value.args == ((1,), {"two": 2})


def test_tasks_inherit_the_scope_and_belong_to_it(starts: Starts, scope: Scope) -> None:
    with stopped_loop() as loop:
        noted = loop.create_task(forever())
        direct = asyncio.Task(forever(), loop=loop)
        loop.run_until_complete(settle())
        assert [starts.scope_of(noted), starts.scope_of(direct)] == [scope, scope]
        # From 3.14 on nobody is told of the tasks that are made in C.
        is_noted = sys.version_info < (3, 14)
        assert (starts.origin_of(direct) is not None) is is_noted
        assert starts.has_unnoted_tasks() is not is_noted


def test_a_task_of_a_librarys_coroutine_was_created_where_its_task_was(starts: Starts) -> None:
    async def main() -> str:
        return await asyncio.wait_for(inner(), 20)

    async def inner() -> str:
        task = asyncio.create_task(asyncio.wait_for(asyncio.sleep(0), 20))
        await task
        return function_of(starts, task)

    assert asyncio.run(main()).endswith(".inner")


def test_a_comprehension_is_part_of_its_function(starts: Starts) -> None:
    def make() -> list[threading.Thread]:
        return [thread for thread in map(begin, range(2)) if thread is not None]

    def begin(_: int) -> threading.Thread:
        return next(thread for thread in (start(),))

    def start() -> threading.Thread:
        thread = threading.Thread(target=int)
        assert [each() for each in [thread.start]] == [None]
        thread.join()
        return thread

    names = {function_of(starts, thread).rpartition(".")[2] for thread in make()}
    assert names == {"start"}


def test_a_coroutine_that_is_handed_to_another_thread_was_created_where_it_was_handed_over(
    starts: Starts, scope: Scope
) -> None:
    with stopped_loop() as loop:
        coro = forever()
        future = asyncio.run_coroutine_threadsafe(coro, loop)
        underway = starts.is_handing_over(scope)
        loop.run_until_complete(settle())
        (task,) = starts.noted("asyncio_task")[:1]
        assert (underway, starts.is_handing_over(scope)) == (True, False)
        assert function_of(starts, task).startswith(f"{__name__}.test_a_coroutine_that_is")
        assert starts.scope_of(task) is scope
        assert not future.done()


def test_what_is_gone_is_forgotten(starts: Starts, scope: Scope) -> None:
    pool = ThreadPoolExecutor(1)
    ref = weakref.ref(pool)
    assert starts.noted("thread_pool") == [pool]
    key = id(pool)
    pool.shutdown()
    del pool
    gc.collect()
    assert (ref(), starts.noted("thread_pool"), key in starts.every) == (None, [], False)


def test_a_hundred_thousand_tasks_are_noted_in_one_place_and_forgotten(starts: Starts) -> None:
    async def main() -> int:
        tasks = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(10_000)]
        origins_of = {starts.origin_of(task) for task in tasks}
        await asyncio.gather(*tasks)
        del tasks
        return len(origins_of)

    before = len(starts.every)
    assert asyncio.run(main()) == 1
    gc.collect()
    assert len(starts.every) <= before + 10
    assert len(starts.departed) <= MAX_DEPARTED


def test_a_loop_class_that_appears_later_is_wrapped_and_restored(starts: Starts) -> None:
    class Late(asyncio.SelectorEventLoop):
        pass

    class Root(asyncio.AbstractEventLoop):
        def __init__(self) -> None:
            self.made = True

    own = vars(Root)["__init__"]
    make: Any = Root
    loop = make()
    assert starts.origin_of(loop) is not None
    with stopped_loop(Late) as late:
        assert starts.origin_of(late) is not None
    starts.close()
    try:
        assert vars(Root)["__init__"] is not own
        assert not hasattr(vars(Root)["__init__"], "__wrapped__")
        assert "__init_subclass__" not in vars(asyncio.AbstractEventLoop)
    finally:
        starts.open()


def test_a_scope_that_was_dealt_with_moves_its_things(starts: Starts, scope: Scope) -> None:
    with standing(1) as (thread,):
        other = Scope()
        starts.ownership.move(scope, other)
        assert starts.scope_of(thread) is other


def test_a_wrapper_that_somebody_kept_notes_nothing_when_it_is_closed() -> None:
    starts = origins.starts
    starts.open()
    kept: Any = threading.Thread.start
    starts.close()
    thread = threading.Thread(target=int)
    kept(thread)
    thread.join()
    assert starts.every == {}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("closes_elsewhere", [True, False])
def test_what_another_thread_closes_while_a_collection_goes_on_is_not_dropped(
    starts: Starts, scope: Scope, closes_elsewhere: bool
) -> None:
    class Owner:
        """Of which the finalizer runs in the midst of a collection."""

        def __init__(self, end: Any) -> None:
            self.itself = self
            self.end = end

        def __del__(self) -> None:
            thread = threading.Thread(target=self.end)
            thread.start()
            thread.join()

    assert scope is current_scope()
    gc.collect()
    loops = [asyncio.new_event_loop()]
    Owner(lambda: loops.pop().close() if closes_elsewhere else None)
    if not closes_elsewhere:
        loops.pop()
    gc.collect()
    assert loops == []
    assert len(starts.dropped) == (0 if closes_elsewhere else 1)


def test_nothing_is_kept_when_it_is_closed() -> None:
    starts = origins.starts
    starts.open()
    with standing(1):
        pass
    starts.close()
    kept = (starts.every, starts.departed, starts.lines._origins, starts._loops.tasks._handed)
    assert [len(each) for each in (*kept, starts.children, starts.destroyed)] == [0] * 6


def job() -> None:
    pass


@pytest.mark.parametrize(
    "fn",
    [
        job,
        functools.partial(job),
        functools.partial(functools.partial(job)),
        functools.partial(contextvars.copy_context().run, job),
    ],
    ids=["plain", "partial", "nested", "to-thread"],
)
def test_a_job_is_called_by_what_it_runs(fn: object) -> None:
    assert name_of(fn) == f"{__name__}.job"


def test_a_callable_object_is_called_by_its_class() -> None:
    assert name_of(Stand()) == "support.leaks.Stand"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/usr/bin/sleep", "10"], "sleep"),
        ("sleep 10; rm -r secret", "sleep"),
        (b"/bin/ls -l", "ls"),
        ("", "?"),
    ],
)
def test_a_program_is_called_without_folder_and_arguments(command: object, name: str) -> None:
    assert program_of(command) == name


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="Windows keeps no zombies")
def test_a_child_is_known_to_be_reaped_by_its_popen_or_by_the_system() -> None:
    popen = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    by_popen, by_system = Child(popen.pid, "python", popen), Child(popen.pid, "python")
    before = [by_popen.is_reaped(), by_system.is_reaped()]
    popen.kill()
    os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
    zombie = [by_popen.is_reaped(), by_system.is_reaped()]
    popen.communicate()
    after = [by_popen.is_reaped(), by_system.is_reaped()]
    assert [before, zombie, after] == [[False] * 2, [False] * 2, [True] * 2]


def test_the_scope_of_a_context_can_be_read_from_outside() -> None:
    scope = Scope()
    context = contextvars.copy_context()
    context.run(scope.enter)
    assert [scope_of_context(context), scope_of_context(None), current_scope()] == [
        *(scope, None, None)
    ]


def test_living_instances_of_subclasses_are_found() -> None:
    class Mine(Stand):
        pass

    mine = Mine()
    assert mine in list(living(Stand))
