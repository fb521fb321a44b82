from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_leaks
from otel_leaks.testing.proof import Proof, prove
from support.leaks import forever, running_loop, settle

# Graphs: things that tasks wait on, and who holds them

KINDS = ("queue", "event", "future", "lock", "condition")
LOCAL = threading.local()
VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("held")
KEPT: list[Any] = []

pytestmark = pytest.mark.allow_leaks(reason="tasks are left to the runner that cancels them")


class Box:
    """An object of the application's own that holds one thing."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def use(self, *_: Any) -> None:
        raise AssertionError("nothing is woken here")


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


class Dying:
    """Would wake somebody as it dies."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __del__(self) -> None:
        """Exist."""


def closure(held: Any) -> Callable[..., Any]:
    def use(*_: Any) -> Any:
        return held

    return use


def in_a_cycle(held: Any) -> Box:
    box = Box(held)
    vars(box).update(me=box)
    return box


WRAPS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda held: held,
    "list": lambda held: [held],
    "dict": lambda held: {"held": held},
    "tuple": lambda held: (1, (held,)),
    "box": Box,
    "slots": Slotted,
    "dying": Dying,
    "method": lambda held: Box(held).use,
    "closure": closure,
    "partial": lambda held: functools.partial(print, held),
    "iterator": lambda held: iter([held]),
    "cycle": in_a_cycle,
}


def in_frame_of_thread(held: Any, stop: threading.Event) -> None:
    stop.wait()
    del held


class Holders:
    """Whoever may wake something, by the name of the way."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []

    def in_module(self, held: Any) -> None:
        KEPT.append(held)

    def in_call_later(self, held: Any) -> None:
        handle = asyncio.get_running_loop().call_later(3600, print, held)
        self._undo.append(handle.cancel)

    def in_call_soon_of_a_loop_that_stands(self, held: Any) -> None:
        loop = asyncio.new_event_loop()
        loop.call_soon(print, held)
        KEPT.append(loop)
        self._undo.append(loop.close)

    def in_signal(self, held: Any) -> None:
        before = signal.signal(signal.SIGTERM, lambda *_: held)
        self._undo.append(lambda: signal.signal(signal.SIGTERM, before))

    def in_signal_of_loop(self, held: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, print, held)
        self._undo.append(lambda: loop.remove_signal_handler(signal.SIGINT))

    def in_reader(self, held: Any) -> None:
        read, write = os.pipe()
        loop = asyncio.get_running_loop()
        loop.add_reader(read, print, held)

        def undo() -> None:
            loop.remove_reader(read)
            os.close(read)
            os.close(write)

        self._undo.append(undo)

    def in_thread_local(self, held: Any) -> None:
        LOCAL.held = held
        self._undo.append(LOCAL.__dict__.clear)

    def in_context(self, held: Any) -> None:
        context = contextvars.copy_context()
        context.run(VARIABLE.set, held)
        KEPT.append(context)

    def in_context_of_live_task(self, held: Any) -> None:
        context = contextvars.copy_context()
        context.run(VARIABLE.set, held)
        task = context.run(asyncio.ensure_future, asyncio.sleep(3600))
        self._undo.append(task.cancel)

    def in_live_task(self, held: Any) -> None:
        async def live(held: Any) -> None:
            await asyncio.sleep(3600)
            del held

        task = asyncio.ensure_future(live(held))
        self._undo.append(task.cancel)

    def in_callback_of_live_task(self, held: Any) -> None:
        task = asyncio.ensure_future(asyncio.sleep(3600))
        task.add_done_callback(closure(held))
        self._undo.append(task.cancel)

    def in_attribute_of_a_blocked_task(self, held: Any) -> None:
        # Nothing can wake it, and yet whoever has it has what it is given.
        task: Any = asyncio.ensure_future(wait_on(asyncio.Event(), None))
        task.held = held
        KEPT.append(task)
        self._undo.append(task.cancel)

    def in_list_of_a_blocked_task(self, held: Any) -> None:
        self.in_attribute_of_a_blocked_task([held])

    def in_thread(self, held: Any) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=in_frame_of_thread, args=(held, stop))
        thread.start()
        self._undo += [thread.join, stop.set]  # Undone from its end.

    def in_finalizer(self, held: Any) -> None:
        owner = Box(None)
        weakref.finalize(owner, closure(None), held).atexit = False
        KEPT.append(owner)

    def by_weakref(self, held: Any) -> None:
        try:
            KEPT.append(weakref.ref(held))
        except TypeError:
            KEPT.append(held)

    def in_weak_values(self, held: Any) -> None:
        try:
            KEPT.append(weakref.WeakValueDictionary({"held": held}))
        except TypeError:
            KEPT.append(held)

    def in_default_argument(self, held: Any) -> None:
        def use(held: Any = held) -> Any:
            return held

        KEPT.append(use)

    def in_class(self, held: Any) -> None:
        KEPT.append(type("Holding", (), {"held": held}))

    def in_generator(self, held: Any) -> None:
        def generate(held: Any) -> Iterator[None]:
            yield
            del held

        generator = generate(held)
        next(generator)
        KEPT.append(generator)

    def in_c(self, held: Any) -> None:
        # An iterator of itertools, half-way.
        iterator = itertools.chain([1], [held])
        next(iterator)
        KEPT.append(map(print, iterator))

    def in_exception(self, held: Any) -> None:
        def fail(held: Any) -> None:
            raise ValueError

        try:
            fail(held)
        except ValueError as error:
            KEPT.append(error)

    def close(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        KEPT.clear()


WAYS = [name for name in vars(Holders) if name.startswith(("in_", "by_"))]


@dataclass(frozen=True)
class Waiting:
    """One task of a graph."""

    on: int
    """The thing that it waits on."""
    also: tuple[int, ...]
    """The things that are in its frame as well."""
    awaits: int | None
    """The task before it that it awaits in place of a thing."""
    wrap: str


@dataclass(frozen=True)
class Graph:
    kinds: tuple[str, ...]
    tasks: tuple[Waiting, ...]
    holders: tuple[tuple[int, str, str], ...] = field(default=())
    """A thing, the way it is held by somebody who lives, and what is around it."""

    def orphaned(self) -> set[int]:
        """Return the tasks that nobody can wake: the truth."""
        live_things = {thing for thing, _, _ in self.holders}
        live_tasks: set[int] = set()
        while True:
            tasks = {
                i
                for i, task in enumerate(self.tasks)
                if (task.on in live_things if task.awaits is None else task.awaits in live_tasks)
            }
            # A live task can use what it has.
            things = live_things | {
                thing for i in tasks for thing in (self.tasks[i].on, *self.tasks[i].also)
            }
            if tasks == live_tasks and things == live_things:
                return set(range(len(self.tasks))) - tasks
            live_tasks, live_things = tasks, things


@st.composite
def graphs(draw: Any) -> Graph:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    things = st.integers(0, len(kinds) - 1)
    tasks = []
    for i in range(draw(st.integers(1, 5))):
        awaits = draw(st.none() | st.integers(0, i - 1)) if i else None
        also = tuple(draw(st.lists(things, max_size=2)))
        tasks.append(Waiting(draw(things), also, awaits, draw(st.sampled_from([*WRAPS]))))
    held = st.tuples(things, st.sampled_from(WAYS), st.sampled_from([*WRAPS]))
    return Graph(tuple(kinds), tuple(tasks), tuple(draw(st.lists(held, max_size=2))))


def made(kind: str) -> Any:
    makes: dict[str, Callable[[], Any]] = {
        "queue": asyncio.Queue,
        "event": asyncio.Event,
        "future": asyncio.get_running_loop().create_future,
        "lock": asyncio.Lock,
        "condition": asyncio.Condition,
    }
    return makes[kind]()


async def wait_on(thing: Any, also: Any) -> None:
    if isinstance(thing, asyncio.Queue):
        await thing.get()
    elif isinstance(thing, asyncio.Lock):
        await thing.acquire()
    elif isinstance(thing, asyncio.Condition):
        async with thing:
            await thing.wait()
    elif isinstance(thing, asyncio.Event):
        await thing.wait()
    else:
        await thing
    del also


def build(graph: Graph, holders: Holders) -> list[asyncio.Task[None]]:
    """Make the tasks of a graph; what is not held on purpose is held by nobody afterwards."""
    things = [made(kind) for kind in graph.kinds]
    tasks: list[asyncio.Task[None]] = []
    for task in graph.tasks:
        also = WRAPS[task.wrap]([things[each] for each in task.also])
        on = things[task.on] if task.awaits is None else tasks[task.awaits]
        if task.awaits is not None:
            # What it does not wait on is in its frame all the same.
            also = (also, things[task.on])
        tasks.append(asyncio.ensure_future(wait_on(on, also)))
    for thing, way, wrap in graph.holders:
        # What is held weakly is gone at once where nobody else holds it.
        is_weak = "weak" in way
        getattr(holders, way)(things[thing] if is_weak else WRAPS[wrap](things[thing]))
    return tasks


def claimed(graph: Graph) -> tuple[set[int], set[int], Proof]:
    """Build a graph; return the tasks that are told orphaned, and those that had ended."""
    holders = Holders()

    async def main() -> tuple[set[int], set[int], Proof]:
        tasks = build(graph, holders)
        await settle()
        ended = {i for i, task in enumerate(tasks) if task.done()}
        for i, task in enumerate(tasks):
            task.set_name(f"graph-{i}")
        proof = prove(budget_s=30)
        found = {
            int(each.name.partition("-")[2])
            for each in proof.orphaned
            if each.name.startswith("graph-")
        }
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found, ended, proof

    try:
        return asyncio.run(main())
    finally:
        holders.close()


# A lock is taken by the first that waits on it, which then ends: who waits behind it waits
# for ever, but no graph says so.
without_locks = graphs().filter(lambda graph: "lock" not in graph.kinds)


@settings(max_examples=60, deadline=None)
@given(without_locks)
def test_what_is_claimed_is_the_truth(graph: Graph) -> None:
    found, ended, proof = claimed(graph)
    assert proof.gave_up is None
    assert ended == set()
    # Never more than the truth; and all of it, as nothing here is beyond explanation.
    assert found - graph.orphaned() == set()
    if not graph.holders:
        assert found == graph.orphaned()


@settings(max_examples=20, deadline=None)
@given(graphs())
def test_nothing_is_claimed_of_what_somebody_holds_whatever_else_there_is(graph: Graph) -> None:
    every = tuple((i, "in_module", "itself") for i in range(len(graph.kinds)))
    found, _, _ = claimed(Graph(graph.kinds, graph.tasks, (*graph.holders, *every)))
    assert found == set()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrap", ["itself", "closure"])
def test_what_somebody_holds_in_any_way_is_not_claimed(way: str, wrap: str) -> None:
    graph = Graph(("queue",), (Waiting(0, (), None, "list"),), ((0, way, wrap),))
    assert claimed(graph)[0] == set()


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"lock"}))
@pytest.mark.parametrize("wrap", WRAPS)
def test_what_blocked_tasks_hold_of_each_other_is_claimed(kind: str, wrap: str) -> None:
    tasks = (Waiting(0, (1,), None, wrap), Waiting(1, (0,), None, wrap), Waiting(1, (0,), 0, wrap))
    assert claimed(Graph((kind, kind), tasks))[0] == {0, 1, 2}


# The function


async def consume(jobs: asyncio.Queue[int]) -> None:
    while True:
        await jobs.get()


def consumers(count: int) -> list[asyncio.Task[None]]:
    return [asyncio.ensure_future(consume(asyncio.Queue())) for _ in range(count)]


def test_tasks_of_the_loop_of_another_thread_are_proved_too() -> None:
    with running_loop() as running:

        async def make() -> list[asyncio.Task[None]]:
            tasks = consumers(2)
            await settle()
            return tasks

        tasks = running.run(make())
        told = {each.name: each.is_orphaned for each in prove().verdicts}
        names = [task.get_name() for task in tasks]
        assert [told[name] for name in names] == [True, True]
        tasks.clear()


def test_a_verdict_is_given_for_those_asked_about() -> None:
    async def main() -> None:
        (first, second) = consumers(2)
        await settle()
        proof = prove(second)
        assert [(each.name, each.is_orphaned) for each in proof.verdicts] == [
            (second.get_name(), True)
        ]
        assert proof.verdicts[0].functions[0] == f"{__name__}.consume"
        first.cancel()
        second.cancel()

    asyncio.run(main())


def test_a_task_that_is_woken_later_is_not_claimed_and_one_that_runs_is_not_asked_about() -> None:
    async def main() -> None:
        current = asyncio.current_task()
        assert current is not None
        sleeper = asyncio.ensure_future(asyncio.sleep(3600))
        await settle()
        proof = prove()
        assert proof.orphaned == ()
        assert current.get_name() not in {each.name for each in proof.verdicts}
        sleeper.cancel()

    asyncio.run(main())


class OwnTask(asyncio.Task):  # type: ignore[type-arg]
    pass


def test_the_heap_is_not_searched_for_tasks_that_a_timer_wakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searches = []

    def searched(*targets: object) -> list[Any]:
        searches.append(1)
        return gc.get_referrers(*targets)

    monkeypatch.setattr("otel_leaks.testing.proof.get_referrers", searched)

    async def main() -> Proof:
        sleeping = asyncio.create_task(asyncio.sleep(3600))
        await settle()
        proof = prove(sleeping)
        sleeping.cancel()
        return proof

    assert asyncio.run(main()).orphaned == ()
    assert searches == []


def test_a_task_of_a_class_of_ones_own_is_not_claimed() -> None:
    async def main() -> None:
        task = OwnTask(consume(asyncio.Queue()))
        KEPT.append(task)
        await settle()
        assert [each.is_orphaned for each in prove(task).verdicts] == [False]
        task.cancel()

    asyncio.run(main())
    KEPT.clear()


def test_two_hundred_tasks_are_proved_at_once() -> None:
    async def main() -> int:
        tasks = consumers(200)
        await settle()
        found = len(prove(*tasks, budget_s=30).orphaned)
        for task in tasks:
            task.cancel()
        return found

    assert asyncio.run(main()) == 200


def test_without_time_it_gives_up_and_claims_nothing() -> None:
    async def main() -> Proof:
        tasks = consumers(1)
        await settle()
        clock = itertools.count()
        proof = prove(budget_s=0.5, clock=lambda: float(next(clock)))
        tasks[0].cancel()
        return proof

    proof = asyncio.run(main())
    assert (proof.gave_up, proof.verdicts) == ("the time was over", ())
    assert str(proof) == "gave up: the time was over"


def test_a_proof_is_a_text_for_a_person() -> None:
    async def main() -> str:
        (task,) = consumers(1)
        task.set_name("mailer")
        await settle()
        told = str(prove(task))
        task.cancel()
        return told

    assert asyncio.run(main()) == (
        "1 of 1 pending tasks are orphaned: nothing but cancellation can end them\n"
        "  mailer: asyncio.queues.Queue.get"
    )


REUSED = """
import asyncio, gc
from otel_leaks import prove

async def consume(jobs):
    await jobs.get()

async def main():
    for _ in range(5):
        # Leaves iterators that asyncio keeps, and uses again.
        await asyncio.gather(*(asyncio.sleep(0.0001) for _ in range(100)))
        # More than the collector searches for: each object of the heap is asked what it refers to.
        tasks = [asyncio.ensure_future(consume(asyncio.Queue())) for _ in range(100)]
        await asyncio.sleep(0)
        assert len(prove(*tasks, budget_s=60).orphaned) == len(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        gc.collect()

asyncio.run(main())
"""


def test_a_search_leaves_alone_what_asyncio_keeps_to_use_again() -> None:
    """On 3.12 the interpreter crashed, or its garbage collector never returned."""
    subprocess.run([sys.executable, "-c", REUSED], check=True, timeout=120)


def test_nothing_is_kept_and_the_garbage_collector_is_as_before() -> None:
    async def main() -> weakref.ref[Any]:
        jobs: asyncio.Queue[int] = asyncio.Queue()
        gone = weakref.ref(jobs)
        task = asyncio.ensure_future(consume(jobs))
        del jobs
        await settle()
        prove()
        task.cancel()
        return gone

    for switch in (gc.enable, gc.disable):
        switch()
        before = gc.isenabled()
        gone = asyncio.run(main())
        assert gc.isenabled() is before
        gc.enable()
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("budget_s", [0, -1.0, float("nan")])
def test_a_budget_has_to_be_positive(budget_s: float) -> None:
    with pytest.raises(ValueError, match="budget_s must be > 0 seconds"):
        prove(budget_s=budget_s)


def test_only_tasks_are_taken() -> None:
    with pytest.raises(TypeError, match="prove\\(\\) takes asyncio tasks, got 1"):
        prove(1)


def test_without_tasks_there_is_nothing_to_prove() -> None:
    assert otel_leaks.prove is prove
    assert str(prove()) == "0 of 0 pending tasks are orphaned: none is known to be"


def test_threads_that_pass_objects_around_make_no_claim_wrong() -> None:
    """Somebody has the queue at any time, though never for long in one place."""
    places: list[list[Any]] = [[], [], []]
    stop = threading.Event()

    def pass_on() -> None:
        while not stop.is_set():
            for i in range(3):
                with contextlib.suppress(IndexError):
                    places[(i + 1) % 3].append(places[i].pop())

    async def main() -> set[bool]:
        jobs: asyncio.Queue[int] = asyncio.Queue()
        task = asyncio.ensure_future(consume(jobs))
        await settle()
        places[0].append(jobs)
        del jobs
        threads = [threading.Thread(target=pass_on) for _ in range(2)]
        for thread in threads:
            thread.start()
        found = {each.is_orphaned for _ in range(10) for each in prove(task).verdicts}
        stop.set()
        for thread in threads:
            thread.join()
        assert sum(map(len, places)) == 1
        task.cancel()
        return found

    assert asyncio.run(main()) <= {False}


async def gathers() -> None:
    await asyncio.gather(consume(asyncio.Queue()), asyncio.sleep(3600))


async def waits_for_any() -> None:
    tasks = [asyncio.ensure_future(each) for each in (forever(), consume(asyncio.Queue()))]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def waits_with_a_timeout() -> None:
    await asyncio.wait_for(asyncio.Queue[int]().get(), 3600)


async def shields() -> None:
    await asyncio.shield(asyncio.ensure_future(forever()))


async def waits_for_a_job() -> None:
    stop = threading.Event()
    KEPT.append(stop)
    await asyncio.get_running_loop().run_in_executor(None, stop.wait)


async def waits_for_another_loop() -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    KEPT.append(future)
    await asyncio.wrap_future(future)


async def reads() -> None:
    ours, theirs = socket.socketpair()
    KEPT.append(theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        await reader.read()
    finally:
        writer.close()
        theirs.close()


@pytest.mark.parametrize(
    "waits",
    [
        *(gathers, waits_for_any, waits_with_a_timeout, shields, waits_for_a_job),
        *(waits_for_another_loop, reads),
    ],
)
def test_what_a_timer_a_socket_a_thread_or_a_live_task_wakes_is_not_claimed(
    waits: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    async def main() -> list[bool]:
        task = asyncio.ensure_future(waits())
        await settle(30)
        found = [each.is_orphaned for each in prove(task).verdicts]
        for each in KEPT:
            if isinstance(each, threading.Event):
                each.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        return found

    try:
        assert asyncio.run(main()) == [False]
    finally:
        KEPT.clear()
