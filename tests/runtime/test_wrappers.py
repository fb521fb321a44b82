"""What is wrapped behaves as it does unwrapped, whatever it is given."""

from __future__ import annotations

import asyncio
import functools
import gc
import subprocess
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_leaks.census import EVERY_SOURCE, SOURCES, CensusTaker
from otel_leaks.ignores import Ignores
from otel_leaks.instrumentor import LeakInstrumentor
from otel_leaks.origins import recorder as origins
from otel_leaks.origins.production import Creations
from otel_leaks.origins.scopes import Scope
from otel_leaks.runtime import patches
from otel_leaks.testing import Grace, find

pytestmark = pytest.mark.unwatched


class Untouchable:
    """Says nothing of itself, not even that it is no task, and can't be referred to weakly."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AssertionError(f"set {name}")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __bool__(self) -> bool:
        raise AssertionError("taken for a truth")

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("iterated")

    def __len__(self) -> int:
        raise AssertionError("counted")

    def __getitem__(self, at: object) -> Any:
        raise AssertionError("looked into")

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("called")


class Lazy:
    """A proxy that loads what it stands for as soon as it is asked for anything."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"loaded for {name}")


class OddThread(threading.Thread):
    """A thread whose attributes are the application's own."""

    @property
    def _target(self) -> Any:
        raise RuntimeError("not yours")

    @_target.setter
    def _target(self, value: object) -> None:
        pass

    def __setattr__(self, name: str, value: object) -> None:
        assert not name.startswith("_otel"), name
        super().__setattr__(name, value)


class OddText(str):
    __slots__ = ()

    def split(self, *_: Any) -> Any:
        raise AssertionError("split")


class OddDict(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise AssertionError("asked for an item")


async def coroutine() -> None:
    pass


def closed() -> Any:
    made = coroutine()
    made.close()
    return made


ODD: tuple[Callable[[], Any], ...] = (
    object,
    Untouchable,
    Lazy,
    Mock,
    MagicMock,
    functools.partial(Mock, spec=asyncio.Task),
    functools.partial(MagicMock, spec=threading.Thread),
    OddThread,
    functools.partial(OddThread, target=print),
    threading.Thread,
    OddDict,
    lambda: {"message": "Task was destroyed but it is pending!", "task": Lazy()},
    functools.partial(OddDict, message="Task was destroyed but it is pending!"),
    lambda: {"message": Untouchable()},
    functools.partial(map, str, (1, 2, 3)),
    functools.partial(iter, ["true"]),
    lambda: functools.partial(MagicMock(spec=print)),
    lambda: functools.partial(print, Untouchable()),
    lambda: functools.partial(print).__call__,
    functools.partial(OddText, "true"),
    lambda: [OddText("a"), Lazy()],
    list,
    tuple,
    closed,
    lambda: None,
    lambda: 7,
    lambda: type,
)

NAMES = ("self", "loop", "coro", "thing", "pool", "fn", "popen", "args", "context", "future", "cls")

odd = st.sampled_from(ODD)
calls = st.tuples(st.lists(odd, max_size=5), st.dictionaries(st.sampled_from(NAMES), odd))
ends = st.sampled_from(("result", "error", "exit"))


class Double:
    """Stands in for what is wrapped: keeps what it was called with, and returns or raises."""

    def __init__(self, ends: str, value: object) -> None:
        self.__name__ = "double"
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.ends = ends
        self.value = value
        self.error = KeyError("its own") if ends == "error" else SystemExit("its own")

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        if self.ends == "result":
            return self.value
        raise self.error


@pytest.fixture(scope="module")
def wrapped() -> Iterator[list[tuple[str, Any]]]:
    """Turn all on, as in production and in tests, and give what makes each wrapper."""

    class Loop(asyncio.AbstractEventLoop):
        """One that is no class of asyncio's, as uvloop's."""

        _asyncgen_firstiter_hook = None

    tests = CensusTaker(
        ignores=Ignores(()), max_sites=1, sources=EVERY_SOURCE, starts=origins.starts
    )
    production = CensusTaker(ignores=Ignores(()), max_sites=1, sources=SOURCES)
    creations = Creations(tasks=True)
    instrumentor = LeakInstrumentor()
    origins.starts.open()
    for each in (tests, production, creations):
        each.open()
    instrumentor.instrument()
    try:
        yield [
            (f"{name_of_owner(point.owner)}.{point.name}", layer.make)
            for point in patches._points
            for layer in point.layers
        ]
    finally:
        instrumentor.uninstrument()
        for each in (creations, production, tests):
            each.close()
        origins.starts.close()
        # The class goes, with the wrappers of its methods.
        del Loop
        gc.collect()


def name_of_owner(owner: Any) -> str:
    return getattr(owner, "__name__", "") or type(owner).__name__


def test_the_list_of_wrappers_is_whole(wrapped: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in wrapped}
    assert names >= {
        *("Thread.start", "BaseProcess.start", "Popen.__init__", "_WorkItem.run"),
        *("ThreadPoolExecutor.__init__", "ProcessPoolExecutor.__init__", "_WorkItem.__init__"),
        *("AbstractEventLoop.__init_subclass__", "asyncio.run_coroutine_threadsafe"),
        *("Loop.create_task", "Loop.subprocess_exec", "Loop.subprocess_shell", "Loop.__init__"),
        *("Loop.call_exception_handler", "Loop._asyncgen_firstiter_hook"),
        *("BaseEventLoop.create_task", "NonRecordingSpan.end", "WeakSet.add"),
        *("BaseEventLoop.call_at", "BaseSelectorEventLoop._add_reader"),
    }


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(call=calls, ends=ends, value=odd, scoped=st.booleans())
def test_each_passes_on_what_it_is_given_and_returns_or_raises_what_comes_back(
    wrapped: list[tuple[str, Any]],
    call: tuple[list[Callable[[], Any]], dict[str, Callable[[], Any]]],
    ends: str,
    value: Callable[[], Any],
    scoped: bool,
) -> None:
    args = [make() for make in call[0]]
    kwargs = {name: make() for name, make in call[1].items()}
    iterators = [each for each in (*args, *kwargs.values()) if type(each) is map]
    for name, make in wrapped:
        if name.endswith("__init_subclass__"):
            continue  # Is no function of its arguments; see below.
        double = Double(ends, value())
        wrapper = make(double)
        scope = Scope("a test")
        token = scope.enter() if scoped else None
        got, raised = result_of(wrapper, args, kwargs)
        if token is not None:
            scope.leave(token)
        assert raised is (None if ends == "result" else double.error), name
        if ends == "result" and not close(got):
            assert got is double.value, name
        ((passed, named),) = double.calls
        assert [*map(id, passed)] == [*map(id, args)], name
        assert {key: id(each) for key, each in named.items()} == {
            key: id(each) for key, each in kwargs.items()
        }, name
    assert all([*each] == ["1", "2", "3"] for each in iterators)
    assert not threads_that_are_unknown()


def result_of(
    call: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> tuple[object, BaseException | None]:
    try:
        return call(*args, **kwargs), None
    except (KeyError, SystemExit) as error:
        return None, error


def close(made: Any) -> bool:
    """Close a coroutine, which stands for the one that it waits for."""
    if type(made) is types.CoroutineType:
        made.close()
        return True
    return False


def threads_that_are_unknown() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if type(each) is threading._DummyThread]


def test_a_subclass_of_a_loop_is_passed_to_the_next_class_in_its_order(
    wrapped: list[tuple[str, Any]],
) -> None:
    seen: list[object] = []

    class Mixin:
        def __init_subclass__(cls, **kwargs: object) -> None:
            seen.append(kwargs)

    types.new_class("Loop", (asyncio.AbstractEventLoop, Mixin), {"depth": 2})
    with pytest.raises(TypeError, match="takes no keyword arguments"):
        types.new_class("Loop", (asyncio.AbstractEventLoop,), {"depth": 2})
    assert seen == [{"depth": 2}]


def test_a_program_whose_arguments_are_an_iterator_runs(wrapped: list[tuple[str, Any]]) -> None:
    done = subprocess.run(  # type: ignore[call-overload]
        map(str, ("echo", "one")), stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == b"one\n"


def test_a_loop_that_only_records_may_return_nothing(wrapped: list[tuple[str, Any]]) -> None:
    class Recorder(asyncio.AbstractEventLoop):
        def create_task(self, coro: Any, **_: Any) -> Any:
            coro.close()

    recorder: Any = Recorder()  # type: ignore[abstract]
    recorder.create_task(coroutine())
    with pytest.raises(TypeError):
        recorder.create_task(closed(), loop=1, self=2)


def test_a_thread_of_ones_own_kind_starts(wrapped: list[tuple[str, Any]]) -> None:
    ran = threading.Event()

    class Worker(OddThread):
        def run(self) -> None:
            ran.set()

    worker = Worker()
    worker.start()
    worker.join()
    assert ran.is_set()


def test_a_bare_thread_stays_unknown_to_threading(wrapped: list[tuple[str, Any]]) -> None:
    import _thread

    done = _thread.allocate_lock()
    done.acquire()

    def run() -> None:
        class Recorder(asyncio.AbstractEventLoop):
            def create_task(self, coro: Any, **_: Any) -> Any:
                coro.close()
                return object()

        loop: Any = Recorder()  # type: ignore[abstract]
        loop.create_task(coroutine())
        seen.append(len(threads_that_are_unknown()))
        done.release()

    seen: list[int] = []
    _thread.start_new_thread(run, ())
    assert done.acquire(timeout=60)
    assert seen == [0]


def test_a_thread_that_is_started_twice_stays_its_first_scopes(
    wrapped: list[tuple[str, Any]],
) -> None:
    first, second = Scope("first"), Scope("second")
    thread = threading.Thread(target=print)
    token = first.enter()
    thread.start()
    first.leave(token)
    token = second.enter()
    with pytest.raises(RuntimeError, match="once"):
        thread.start()
    second.leave(token)
    thread.join()
    assert origins.starts.scope_of(thread) is first


def test_doubles_make_no_kind_unreadable(
    wrapped: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorder(asyncio.AbstractEventLoop):
        """Has none of a loop's methods."""

    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "_execute_child", Mock())
        started_nothing = subprocess.Popen(["true"])
    loop: Any = Recorder()  # type: ignore[abstract]
    found = find(grace=Grace(attempts=1))
    assert not [site for site in found if "Recorder" in str(site.functions)]
    assert [started_nothing.args, loop.__class__] == [["true"], Recorder]
