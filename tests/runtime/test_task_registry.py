from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from otel_leaks.census.tasks import TaskSource
from otel_leaks.runtime import task_registry as registry
from otel_leaks.runtime.living_loops import LivingLoops
from otel_leaks.runtime.task_registry import TaskRegistry
from support.leaks import forever, look, settle, stopped_loop


@pytest.fixture
def loops() -> Iterator[LivingLoops]:
    """Give what 3.14 needs to know the loops, on every version."""
    loops = LivingLoops()
    yield loops
    loops.close()


@pytest.fixture
def per_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read tasks loop by loop, as on 3.14: through asyncio.all_tasks alone."""
    monkeypatch.setattr(registry, "_PER_LOOP", True)
    # On 3.14 the sets have the tasks that are written in Python only.
    monkeypatch.setattr(registry, "_in_sets", lambda _: [])


def new_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def test_a_loop_that_is_made_while_it_is_open_is_known(loops: LivingLoops) -> None:
    loops.open()
    with stopped_loop() as loop:
        assert loop in list(loops)


def test_a_loop_that_was_made_before_is_found(loops: LivingLoops) -> None:
    with stopped_loop() as loop:
        loops.open()
        assert loop in list(loops)


def test_a_loop_of_a_subclass_is_known_made_before_or_after(loops: LivingLoops) -> None:
    class Before(asyncio.SelectorEventLoop):
        pass

    with stopped_loop(Before) as before:
        loops.open()

        class After(Before):
            def __init__(self) -> None:
                super().__init__()
                self.own = True

        with stopped_loop(After) as after:
            assert {before, after} <= set(loops)


def test_loops_of_uvloop_are_known_made_before_or_after(loops: LivingLoops) -> None:
    uvloop = pytest.importorskip("uvloop")
    with stopped_loop(uvloop.new_event_loop) as before:
        loops.open()
        with stopped_loop(uvloop.new_event_loop) as after:
            assert {before, after} <= set(loops)


def test_loops_of_a_library_that_is_imported_later_are_found(loops: LivingLoops) -> None:
    loops.open()

    class Loop(asyncio.AbstractEventLoop):
        pass

    before = Loop()  # type: ignore[abstract]
    loops.discover()
    after = Loop()  # type: ignore[abstract]
    assert {before, after} <= set(loops)


def test_loops_are_held_weakly(loops: LivingLoops) -> None:
    loops.open()
    loop = new_loop()
    ref = weakref.ref(loop)
    assert loop in list(loops)
    loop.close()
    del loop
    gc.collect()
    assert ref() is None


@pytest.mark.unwatched
def test_closing_restores_every_constructor_by_identity(loops: LivingLoops) -> None:
    uvloop = pytest.importorskip("uvloop")
    classes = [asyncio.BaseEventLoop, asyncio.SelectorEventLoop, uvloop.Loop]
    before = [vars(cls).get("__init__") for cls in classes]
    for _ in range(3):
        loops.open()
        assert vars(asyncio.BaseEventLoop)["__init__"] is not before[0]
        loops.close()
        after = [vars(cls).get("__init__") for cls in classes]
        assert [a is b for a, b in zip(after, before, strict=True)] == [True] * 3
        assert ["__init__" in vars(cls) for cls in classes] == [init is not None for init in before]


def test_a_loop_class_is_wrapped_once_however_often_it_is_looked_for(loops: LivingLoops) -> None:
    loops.open()
    wrapped = vars(asyncio.BaseEventLoop)["__init__"]
    loops.discover()
    loops.open()
    assert vars(asyncio.BaseEventLoop)["__init__"] is wrapped


def test_a_wrapper_that_somebody_put_on_ours_is_left_alone(
    loops: LivingLoops, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = vars(asyncio.BaseEventLoop)["__init__"]
    loops.open()
    ours = vars(asyncio.BaseEventLoop)["__init__"]

    def theirs(self: Any) -> None:
        ours(self)

    asyncio.BaseEventLoop.__init__ = theirs  # type: ignore[method-assign]
    try:
        loops.close()
        assert vars(asyncio.BaseEventLoop)["__init__"] is theirs
        # And it still makes loops, which are not noted any more.
        with stopped_loop() as loop:
            assert loop not in list(loops)
    finally:
        asyncio.BaseEventLoop.__init__ = original  # type: ignore[method-assign]


def test_a_closed_one_knows_no_loop_and_looks_for_none(loops: LivingLoops) -> None:
    with stopped_loop():
        loops.open()
        loops.close()
        loops.discover()
        assert list(loops) == []


@pytest.mark.unwatched
def test_the_wrapper_looks_like_the_constructor(loops: LivingLoops) -> None:
    original = vars(asyncio.BaseEventLoop)["__init__"]
    loops.open()
    wrapped = vars(asyncio.BaseEventLoop)["__init__"]
    assert (wrapped.__qualname__, wrapped.__wrapped__) == (original.__qualname__, original)


def test_a_lock_that_another_thread_held_at_the_fork_does_not_matter(loops: LivingLoops) -> None:
    loops.open()
    loops._lock.acquire()
    loops.forked()
    with stopped_loop() as loop:
        assert loop in list(loops)


def test_a_constructor_that_raises_raises_and_notes_nothing(loops: LivingLoops) -> None:
    loops.open()

    class Broken(asyncio.BaseEventLoop):
        _closed = True  # What its finaliser asks for.

        def __init__(self) -> None:
            raise OSError("no more files")

    known = set(loops)
    with pytest.raises(OSError, match="no more files"):
        Broken()
    gc.collect()
    assert set(loops) <= known


@pytest.mark.usefixtures("per_loop")
def test_tasks_are_read_loop_by_loop_as_on_3_14() -> None:
    source = TaskSource()
    with stopped_loop() as before:
        kept = [before.create_task(forever()) for _ in range(3)]
        source.open()
        try:
            with stopped_loop() as after:
                kept += [after.create_task(forever()) for _ in range(4)]
                before.run_until_complete(settle())
                after.run_until_complete(settle())
                found = source.read(look())
        finally:
            source.close()
    assert [(site.function, site.count) for site in found.sites] == [("support.leaks.forever", 7)]


@pytest.mark.usefixtures("per_loop")
def test_reading_loop_by_loop_holds_no_task() -> None:
    tasks = TaskRegistry()
    tasks.open()
    try:
        with stopped_loop() as loop:
            task = loop.create_task(settle(1))
            gc.disable()
            try:
                refs = tasks.refs(lambda: None)
                assert [ref() is task for ref in refs] == [True]
                loop.run_until_complete(settle(3))
                del task
                assert [ref() for ref in refs] == [None]
            finally:
                gc.enable()
    finally:
        tasks.close()


def test_a_set_that_changes_while_it_is_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = iter([True] * 5)

    def all_tasks(loop: object) -> set[Any]:
        if next(tries, False):
            raise RuntimeError("Set changed size during iteration")
        return set()

    monkeypatch.setattr(asyncio.tasks, "all_tasks", all_tasks)
    with stopped_loop() as loop:
        found = registry._refs_of(asyncio.tasks, loop)
        monkeypatch.undo()
    assert found == []


@pytest.mark.skipif(
    not (3, 12) <= sys.version_info < (3, 14), reason="3.12 and 3.13 have two sets of tasks"
)
def test_a_task_that_leaves_its_eager_step_meanwhile_is_seen_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The two sets are read one after the other; a task may go from one to the other."""

    class Task:
        pass

    class Eager(set[Task]):
        """Its task goes when it has been read."""

        def __iter__(self) -> Iterator[Task]:
            found = list(super().__iter__())
            graduate()
            return iter(found)

    class Scheduled:
        """A task comes to it when it has been read, if it has not yet."""

        def __init__(self) -> None:
            self.tasks: weakref.WeakSet[Task] = weakref.WeakSet()

        def __contains__(self, task: Task) -> bool:
            return task in self.tasks

        @property
        def data(self) -> set[weakref.ref[Task]]:
            found = set(self.tasks.data)  # type: ignore[attr-defined]
            graduate()
            return found

    def graduate() -> None:
        scheduled.tasks.add(task)
        eager.clear()

    task, scheduled = Task(), Scheduled()
    eager = Eager({task})
    monkeypatch.setattr(asyncio.tasks, "_eager_tasks", eager)
    monkeypatch.setattr(asyncio.tasks, "_scheduled_tasks", scheduled)
    found = [[ref() for ref in TaskRegistry().refs(lambda: None)] for _ in range(2)]
    monkeypatch.undo()
    assert found == [[task], [task]]


@pytest.mark.skipif(
    not (3, 12) <= sys.version_info < (3, 14), reason="3.12 and 3.13 have two sets of tasks"
)
def test_a_task_that_is_scheduled_before_the_second_set_is_read_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Task:
        pass

    class Scheduled:
        @property
        def data(self) -> set[weakref.ref[Task]]:
            eager.clear()  # Too late for this set, too early for the other.
            return set()

    task = Task()
    eager = {task}
    monkeypatch.setattr(asyncio.tasks, "_eager_tasks", eager)
    monkeypatch.setattr(asyncio.tasks, "_scheduled_tasks", Scheduled())
    found = [ref() for ref in TaskRegistry().refs(lambda: None)]
    monkeypatch.undo()
    assert found == [task]


def test_threads_that_make_loops_meanwhile_do_no_harm(loops: LivingLoops) -> None:
    loops.open()
    stop = threading.Event()
    begun = threading.Event()

    def make() -> None:
        while not stop.is_set():
            new_loop().close()
            begun.set()

    thread = threading.Thread(target=make)
    thread.start()
    assert begun.wait(20)
    try:
        for _ in range(200):
            list(loops)
    finally:
        stop.set()
        thread.join(20)
