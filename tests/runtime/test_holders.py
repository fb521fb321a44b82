"""What holds an object: each way to hold a task is named, and nothing is claimed that is not so."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import ctypes
import functools
import gc
import itertools
import socket
import sys
import threading
import types
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

import pytest

from otel_leaks.runtime import holders
from otel_leaks.runtime.frames import can_read
from otel_leaks.runtime.holders import Root, holders_of
from otel_leaks.runtime.walks import Walk
from support import ways_to_hold

pytestmark = [
    pytest.mark.skipif(not can_read(), reason="nothing is looked for without the GIL"),
    pytest.mark.allow_leaks(reason="tasks are left pending, in order to be looked for"),
]

HERE = __name__
ALONE = "the event loop alone"
LONG_S = 60.0
"""The time is over in one test alone."""

kept: dict[str, Any] = {}


async def leaked() -> None:
    await asyncio.sleep(3600)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    try:
        yield made
        made.run_until_complete(end_others())
    finally:
        made.close()
        kept.clear()
        ways_to_hold.clear()


async def end_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for each in tasks:
        each.cancel()
    if tasks:
        await asyncio.wait(tasks)


def ref_to_new(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    hold: Callable[[Any], object] = id,
) -> weakref.ref[Any]:
    """Start a task, and return when it waits; nothing here holds it."""
    task = loop.create_task(coroutine)
    hold(task)
    loop.run_until_complete(asyncio.sleep(0))
    return weakref.ref(task)


def holder_of(ref: weakref.ref[Any], **options: Any) -> str:
    (said,) = holders_of([ref()], budget_s=LONG_S, **options)
    return said


@pytest.mark.parametrize("way", ways_to_hold.WAYS, ids=lambda way: way.__name__)
def test_each_way_to_hold_a_task_is_named(
    loop: asyncio.AbstractEventLoop, way: Callable[[Any], None]
) -> None:
    expected = ways_to_hold.WAYS[way]
    if sys.version_info < (3, 11):
        # A code object does not know where it was defined.
        expected = expected.replace("by_traceback.<locals>.fails", "fails")
    assert holder_of(ref_to_new(loop, leaked(), way)) == expected


def test_a_task_that_only_waits_for_its_time_is_held_by_the_loop_alone(
    loop: asyncio.AbstractEventLoop,
) -> None:
    assert holder_of(ref_to_new(loop, leaked())) == f"{ALONE} (a timer)"


def test_weak_references_hold_nothing(loop: asyncio.AbstractEventLoop) -> None:
    def hold(task: Any) -> None:
        kept["weakly"] = (weakref.WeakSet([task]), weakref.ref(task))

    assert holder_of(ref_to_new(loop, leaked(), hold)) == f"{ALONE} (a timer)"


def test_a_task_whose_turn_comes_is_held_by_the_queue_of_the_loop(
    loop: asyncio.AbstractEventLoop,
) -> None:
    ref = weakref.ref(loop.create_task(leaked()))
    assert holder_of(ref) == f"{ALONE} (its ready queue)"


def test_a_task_that_reads_from_a_socket_is_held_by_the_loop_alone(
    loop: asyncio.AbstractEventLoop,
) -> None:
    # What a function runs has no variables here.
    kept_alive = socket.socketpair()
    for each in kept_alive:
        each.setblocking(False)

    async def read() -> None:
        await loop.sock_recv(kept_alive[0], 1)

    try:
        assert holder_of(ref_to_new(loop, read())) == f"{ALONE} (a socket)"
        kept_alive[1].send(b"x")
        loop.run_until_complete(asyncio.sleep(0.01))
    finally:
        for each in kept_alive:
            each.close()


def test_what_a_timer_of_the_application_is_given_is_held_by_that(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def waits(on: asyncio.Future[None]) -> None:
        await on

    def end(task: Any) -> None:
        """Do nothing."""

    ref = ref_to_new(
        loop, waits(loop.create_future()), lambda task: loop.call_later(3600, end, task)
    )
    name = f"{HERE}.{end.__qualname__}"
    assert holder_of(ref) == f"the event loop (a timer that calls {name})"


class Expiring:
    """Has a task, and a method that a loop calls later."""

    task: Any = None

    def expire(self) -> None:
        """Do nothing."""


def test_the_timer_that_a_task_waits_for_hides_no_other_one(
    loop: asyncio.AbstractEventLoop,
) -> None:
    def hold(task: Any) -> None:
        expiring = Expiring()
        expiring.task = task
        loop.call_later(3600, expiring.expire)

    expected = f"the event loop (a timer that calls {HERE}.Expiring.expire)"
    assert holder_of(ref_to_new(loop, leaked(), hold)) == expected


def test_the_context_of_what_a_loop_calls_later_holds_a_task(
    loop: asyncio.AbstractEventLoop,
) -> None:
    def hold(task: Any) -> None:
        context = contextvars.Context()
        context.run(ways_to_hold.variable.set, [task])
        loop.call_later(3600, int, context=context)

    expected = "the event loop (a timer) -> context variable current_task[…]"
    assert holder_of(ref_to_new(loop, leaked(), hold)) == expected


def test_the_context_of_a_task_itself_holds_nothing(loop: asyncio.AbstractEventLoop) -> None:
    async def knows_itself() -> None:
        ways_to_hold.variable.set(asyncio.current_task())
        await asyncio.sleep(3600)

    assert holder_of(ref_to_new(loop, knows_itself())) == f"{ALONE} (a timer)"


class Listener(asyncio.Protocol):
    """Has a task of its own for each connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.task = asyncio.ensure_future(leaked())


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


def handling() -> asyncio.StreamReaderProtocol:
    return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)


@pytest.mark.skipif(sys.platform == "win32", reason="the loop of Windows has no readers")
@pytest.mark.parametrize(
    ("protocol", "held"),
    [
        (Listener, f"<{HERE}.Listener>.task"),
        (handling, "<asyncio.streams.StreamReaderProtocol>._task"),
    ],
)
def test_the_protocol_of_a_connection_holds_its_task(
    loop: asyncio.AbstractEventLoop, protocol: Callable[[], asyncio.Protocol], held: str
) -> None:
    ours, theirs = socket.socketpair()

    # A variable here would be another holder.
    transport = weakref.ref(
        loop.run_until_complete(loop.connect_accepted_socket(protocol, ours))[0]
    )
    try:
        # What serves the connection starts as soon as the loop turns.
        loop.run_until_complete(asyncio.sleep(0))
        (task,) = asyncio.all_tasks(loop)
        ref = weakref.ref(task)
        del task
        assert holder_of(ref) == f"the event loop (a socket) -> {held}"
    finally:
        theirs.close()
        # One that streams keeps its side open when the other closes.
        if (left := transport()) is not None:
            left.close()
        loop.run_until_complete(asyncio.sleep(0.01))


def test_what_a_callback_of_another_task_is_given_is_held_by_that_task(
    loop: asyncio.AbstractEventLoop,
) -> None:
    other = ref_to_new(loop, leaked())

    def hold(task: Any) -> None:
        other().add_done_callback(functools.partial(print, task))  # type: ignore[union-attr]

    assert holder_of(ref_to_new(loop, leaked(), hold)) == f"{HERE}.leaked._callbacks[…].args[…]"


def test_the_queue_that_it_waits_on_holds_a_task(loop: asyncio.AbstractEventLoop) -> None:
    kept["queue"] = asyncio.Queue()
    ref = ref_to_new(loop, kept["queue"].get())
    assert holder_of(ref) == f"{HERE}.kept['...']._getters[…], which wakes it"


async def parent(*children: Any) -> None:
    mine = children[0]
    del children
    await asyncio.sleep(3600)
    assert mine


async def awaits(child: Any) -> None:
    await child.pop()


async def gathers(child: Any) -> None:
    await asyncio.gather(child.pop(), asyncio.sleep(3600))


def test_a_variable_of_another_task_holds_a_task(loop: asyncio.AbstractEventLoop) -> None:
    ref = ref_to_new(loop, leaked(), lambda task: ref_to_new(loop, parent(task)))
    assert holder_of(ref) == f"{HERE}.parent.<locals>.mine"


def test_a_task_that_awaits_another_holds_it(loop: asyncio.AbstractEventLoop) -> None:
    ref = ref_to_new(loop, leaked(), lambda task: ref_to_new(loop, awaits([task])))
    assert holder_of(ref) == f"{HERE}.awaits.<await>"


def test_what_gathers_a_task_holds_it(loop: asyncio.AbstractEventLoop) -> None:
    ref = ref_to_new(loop, leaked(), lambda task: ref_to_new(loop, gathers([task])))
    assert holder_of(ref) == f"{HERE}.gathers.<await>._children[…]"


def test_who_keeps_the_coroutine_of_a_task_holds_it(loop: asyncio.AbstractEventLoop) -> None:
    kept["coroutine"] = leaked()
    ref = ref_to_new(loop, kept["coroutine"])
    assert holder_of(ref) == f"{HERE}.kept['...'], its coroutine"


def test_what_asyncio_run_sets_to_handle_a_signal_holds_nothing() -> None:
    async def main() -> str:
        child = asyncio.ensure_future(leaked())
        await asyncio.sleep(0)
        look = functools.partial(holders_of, [child], budget_s=LONG_S, reads_functions=False)
        (said,) = await asyncio.to_thread(look)
        child.cancel()
        return said

    assert " SIG" not in asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="wait_for makes a task of it before 3.12")
def test_a_timeout_is_how_the_loop_runs_a_task(loop: asyncio.AbstractEventLoop) -> None:
    async def waits() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 3600)

    assert holder_of(ref_to_new(loop, waits())) == f"{ALONE} (a timer)"


def test_attributes_of_one_object_hold_each_of_several_tasks(
    loop: asyncio.AbstractEventLoop,
) -> None:
    class Session:
        pass

    kept["session"] = session = Session()
    refs = [
        ref_to_new(loop, leaked(), functools.partial(setattr, session, name))
        for name in ("reader", "writer", "pinger")
    ]
    del session
    # It is not yet known by what name: to look for that changes what some Pythons keep it in.
    assert holders_of([ref() for ref in refs], budget_s=LONG_S) == [
        f"{HERE}.kept['...'].reader",
        f"{HERE}.kept['...'].writer",
        f"{HERE}.kept['...'].pinger",
    ]


def test_of_what_is_moved_while_it_is_looked_for_nothing_is_claimed(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Walk.run

    def run_and_change(walk: Walk, roots: Iterable[Any]) -> bool:
        try:
            return run(walk, roots)
        finally:
            kept.clear()

    ref = ref_to_new(loop, leaked(), functools.partial(kept.setdefault, "task"))
    monkeypatch.setattr(Walk, "run", run_and_change)
    assert holder_of(ref) == "unknown: what holds it changed during the search"


def test_one_of_those_that_are_asked_about_may_hold_another(
    loop: asyncio.AbstractEventLoop,
) -> None:
    parents: list[weakref.ref[Any]] = []
    child = ref_to_new(loop, leaked(), lambda task: parents.append(ref_to_new(loop, parent(task))))
    assert holders_of([parents[0](), child()], budget_s=LONG_S) == [
        f"{ALONE} (a timer)",
        f"{HERE}.parent.<locals>.mine",
    ]


def test_a_task_that_only_itself_knows_is_held_by_the_loop_alone(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def knows_itself() -> None:
        mine = [asyncio.current_task()]
        await asyncio.sleep(3600)
        assert mine

    assert holder_of(ref_to_new(loop, knows_itself())) == f"{ALONE} (a timer)"


def test_of_a_cycle_of_garbage_nothing_is_claimed(loop: asyncio.AbstractEventLoop) -> None:
    gc.disable()
    try:
        ref = ref_to_new(loop, asyncio.Queue[None]().get())
        assert holder_of(ref) == "unknown"
    finally:
        gc.enable()
        ref().cancel()  # type: ignore[union-attr]


def test_of_what_c_holds_unseen_nothing_is_claimed() -> None:
    box = ways_to_hold.Plain()
    ref = weakref.ref(box)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(box))
    del box
    try:
        assert holder_of(ref) == "unknown"
    finally:
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(ref()))


def test_a_finished_task_is_held_by_who_keeps_its_result(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def answer() -> int:
        return 42

    def hold(task: Any) -> None:
        kept["results"] = {7: task}

    ref = ref_to_new(loop, answer(), hold)
    assert ref().done()  # type: ignore[union-attr]
    assert holder_of(ref) == f"{HERE}.kept['...'][…]"


# Running code


def test_a_variable_of_a_running_function_holds_it(loop: asyncio.AbstractEventLoop) -> None:
    def runs(mine: Any) -> str:
        (said,) = holders_of([mine], budget_s=LONG_S)
        return said

    name = runs.__qualname__ if sys.version_info >= (3, 11) else "runs"
    assert runs(ways_to_hold.Plain()) == f"{HERE}.{name}.<locals>.mine"


def test_what_was_looked_at_in_a_running_function_is_not_kept() -> None:
    mine = ways_to_hold.Plain()
    ref = weakref.ref(mine)
    holders_of([mine], budget_s=LONG_S)
    del mine
    assert ref() is None


def test_the_variables_that_locals_gave_out_stay_as_they_are() -> None:
    mine = ways_to_hold.Plain()
    given = locals()
    holders_of([mine], budget_s=LONG_S)
    assert given["mine"] is mine


@contextlib.contextmanager
def running(run: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Have another thread run until the end of the block what calls what it is given."""
    is_there, ends = threading.Event(), threading.Event()

    def wait() -> None:
        is_there.set()
        ends.wait()

    thread = threading.Thread(target=run, args=(wait,))
    thread.start()
    try:
        assert is_there.wait(60)
        yield
    finally:
        ends.set()
        thread.join()


class Told(list[Any]):
    """A list that can be referred to weakly."""


def test_a_variable_of_a_function_in_another_thread_holds_it() -> None:
    refs: list[weakref.ref[Any]] = []

    def elsewhere(wait: Callable[[], None]) -> None:
        mine = Told()
        refs.append(weakref.ref(mine))
        wait()

    name = elsewhere.__qualname__ if sys.version_info >= (3, 11) else "elsewhere"
    with running(elsewhere):
        assert holder_of(refs[0]) == f"{HERE}.{name}.<locals>.mine"
    assert refs[0]() is None


local = threading.local()


def test_a_thread_local_of_another_thread_holds_it() -> None:
    refs: list[weakref.ref[Any]] = []

    def elsewhere(wait: Callable[[], None]) -> None:
        local.mine = Told()
        refs.append(weakref.ref(local.mine))
        wait()

    with running(elsewhere):
        assert holder_of(refs[0]) == f"{HERE}.local.mine"


def test_an_attribute_of_a_running_thread_holds_it() -> None:
    class Worker(threading.Thread):
        def __init__(self) -> None:
            super().__init__(name="worker")
            self.mine = Told()
            self.is_there, self.ends = threading.Event(), threading.Event()

        def run(self) -> None:
            wait_for(self.is_there, self.ends)

    def wait_for(is_there: threading.Event, ends: threading.Event) -> None:
        is_there.set()
        ends.wait()

    def started() -> tuple[weakref.ref[Any], threading.Event, weakref.ref[threading.Thread]]:
        worker = Worker()
        worker.start()
        assert worker.is_there.wait(60)
        return weakref.ref(worker.mine), worker.ends, weakref.ref(worker)

    ref, ends, worker = started()
    try:
        assert holder_of(ref) == "the thread 'worker'.mine"
        assert holder_of(worker) == "nothing: a running thread lives by itself"
        kept["worker"] = worker()
        assert holder_of(worker) == f"{HERE}.kept['...']"
    finally:
        ends.set()
        kept.clear()


def test_the_exception_that_is_being_handled_holds_what_its_traceback_has() -> None:
    def fails(mine: Any) -> None:
        raise ValueError

    name = fails.__qualname__ if sys.version_info >= (3, 11) else "fails"
    box = Told()
    ref = weakref.ref(box)
    try:
        fails(box)
    except ValueError:
        del box
        assert holder_of(ref) == (
            f"the exception that is being handled.__traceback__ -> {HERE}.{name}.<locals>.mine"
        )


# At exit


class Client:
    """Has what it ends at exit; says whatever is asked of it."""

    def __init__(self) -> None:
        self.pump = Told()

    def close(self) -> None:
        """Do nothing."""

    def __call__(self) -> None:
        """Do nothing."""

    def __eq__(self, other: object) -> bool:
        asked.append("eq")
        return self is other

    __hash__ = None  # type: ignore[assignment]


def stop(*_: object, **__: object) -> None:
    """Do nothing."""


def stops(client: Client) -> Callable[[], None]:
    def stop_it() -> None:
        client.close()

    return stop_it


AT_EXIT: dict[str, tuple[Callable[[Client], object], str, str]] = {
    "method": (
        lambda client: atexit.register(client.close),
        f"atexit -> {HERE}.Client.close.__self__.pump",
        "",
    ),
    "closure": (
        lambda client: atexit.register(stops(client)),
        f"atexit -> {HERE}.stops.<locals>.stop_it.<closure>.client.pump",
        "",
    ),
    "object": (atexit.register, f"atexit -> <{HERE}.Client>.pump", ""),
    "argument": (
        lambda client: atexit.register(stop, client),
        f"atexit -> {HERE}.stop.args[…].pump",
        "unknown",
    ),
    "keyword": (
        lambda client: atexit.register(stop, secret=client),
        f"atexit -> {HERE}.stop.kwargs.secret.pump",
        "unknown",
    ),
}


def registered(how: Callable[[Client], Any]) -> tuple[weakref.ref[Any], weakref.ref[Any]]:
    """Return what is held at exit, and the function; nothing here holds them."""
    client = Client()
    return weakref.ref(client.pump), weakref.ref(how(client))


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before 3.14 atexit does not show it")
@pytest.mark.parametrize("how", AT_EXIT)
def test_what_is_called_at_exit_holds_what_it_refers_to(how: str) -> None:
    register, expected, unseen = AT_EXIT[how]
    ref, function = registered(register)
    count = atexit._ncallbacks()
    asked.clear()
    try:
        assert holder_of(ref) == expected
        assert holder_of(ref, reads_functions=False) == (unseen or expected)
        assert atexit._ncallbacks() == count
        assert asked == []
    finally:
        atexit.unregister(function())  # type: ignore[arg-type]
        asked.clear()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="from 3.14 on atexit shows it")
def test_what_is_called_at_exit_is_not_looked_for_where_it_would_be_asked() -> None:
    ref, function = registered(atexit.register)
    asked.clear()
    try:
        assert holder_of(ref) == "unknown"
        assert asked == []
    finally:
        atexit.unregister(function())  # type: ignore[arg-type]
        asked.clear()


# Where it is


def test_a_module_is_named_as_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = types.ModuleType("shop"), types.ModuleType("shop.orders")
    package.orders = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop", package)
    monkeypatch.setitem(sys.modules, "shop.orders", module)
    module.last = Told()  # type: ignore[attr-defined]
    assert holder_of(weakref.ref(module.last)) == "shop.orders.last"


def test_what_the_caller_names_is_called_so() -> None:
    box = ways_to_hold.Plain()
    box.held = Told()
    ref = weakref.ref(box.held)
    roots = [Root("fixture box", box), Root("fixture held", box.held)]
    del box
    assert holder_of(ref, roots=roots[:1]) == "fixture box.held"
    assert holder_of(ref, roots=roots[1:]) == "fixture held"


class Touchy(type):
    """Its instances' class, and they, count whatever is asked of them."""

    def __hash__(cls) -> int:
        asked.append("hash of class")
        return 1

    def __eq__(cls, other: object) -> bool:
        asked.append("eq of class")
        return cls is other

    def __getattribute__(cls, name: str) -> Any:
        asked.append(name)
        return super().__getattribute__(name)


class Asked(metaclass=Touchy):
    """Notes what is asked of it."""

    held: Any

    def __getattribute__(self, name: str) -> Any:
        asked.append(name)
        return super().__getattribute__(name)

    def __eq__(self, other: object) -> bool:
        asked.append("eq")
        return self is other

    def __hash__(self) -> int:
        asked.append("hash")
        return 1

    def __repr__(self) -> str:
        asked.append("repr")
        return "?"


asked: list[str] = []


def test_nothing_of_the_application_is_asked_anything() -> None:
    touchy = Asked()
    touchy.held = Told()
    ref = weakref.ref(touchy.held)
    kept["touchy"] = {touchy: [touchy]}
    kept["of class"] = {Asked: Asked}
    del touchy
    asked.clear()
    try:
        assert holder_of(ref) == f"{HERE}.kept['...'].keys()[…].held"
        assert asked == []
    finally:
        kept.clear()
        asked.clear()


def test_nothing_is_kept_of_what_was_walked_over() -> None:
    def looked_at() -> list[weakref.ref[Any]]:
        boxes = [Told() for _ in range(1000)]
        holders_of([Told()], budget_s=LONG_S)
        return [weakref.ref(each) for each in boxes]

    assert [ref() for ref in looked_at()] == [None] * 1000


# Time


def test_it_ends_when_its_time_is_over_and_says_so(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.chain((0.0,), itertools.repeat(100.0))
    monkeypatch.setattr(holders, "_thread_time", clock.__next__)
    pauses = []
    ref = ref_to_new(loop, leaked())
    said = holders_of([ref(), Told()], budget_s=5.0, pause=lambda: pauses.append(1))
    assert said == [
        "the event loop (a timer), and perhaps others: the search was ended after 5 s",
        "unknown: the search was ended after 5 s",
    ]
    assert len(pauses) < 100


def test_without_the_gil_nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "can_read", lambda: False)
    assert holders_of([Told()], budget_s=LONG_S) == [
        "unknown: this is not looked for without the GIL"
    ]
