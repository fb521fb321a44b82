"""A task is counted as what the application started, whoever wraps it and whatever it does."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import asgiref.sync
import pytest

from otel_leaks.census.tasks import TaskSource
from otel_leaks.model import Frame, Population
from support.installed import installed
from support.leaks import forever, look, settle, stopped_loop

pytestmark = pytest.mark.allow_leaks(reason="tasks are left on loops, which take them along")

HERE = __name__
Loop = asyncio.AbstractEventLoop
Wrap = Callable[[Any], Coroutine[Any, Any, Any]]

TRACERS = """
    import contextlib

    async def argument(coro):
        if not hasattr(coro, "__name__"):
            return await coro
        state = "pending"
        try:
            return await coro
        except Exception as error:
            state = type(error).__name__
            raise
        finally:
            state = state.upper()

    def closure(coro):
        context = object()
        async def traced_coro(*args_c, **kwargs_c):
            if context != coro:
                repr(context)
            return await coro
        return traced_coro()

    class Kept:
        def __init__(self, coro):
            self._coro = coro
        async def run(self):
            return await self._coro

    def attribute(coro):
        return Kept(coro).run()

    class Slotted:
        __slots__ = ("_coro", "_scope")
        def __init__(self, coro):
            self._coro = coro
            self._scope = contextlib.nullcontext()
        async def _run_coro(self):
            with self._scope:
                try:
                    retval = await self._coro
                except BaseException as error:
                    raise
                finally:
                    del self

    def slot(coro):
        return Slotted(coro)._run_coro()

    class Span:
        def __init__(self, entered=None):
            self.entered = entered
        async def __aenter__(self):
            if self.entered is not None:
                await self.entered()
        async def __aexit__(self, *error):
            pass

    async def entered(coro, span=Span()):
        async with span:
            return await coro

    def aliased(coro):
        kept = Kept(coro)
        async def traced():
            coro = kept._coro
            kept._coro = None
            return await coro
        return traced()

    def nested(coro):
        return closure(argument(slot(entered(coro))))
"""
WRAPS = ("aliased", "argument", "closure", "attribute", "slot", "entered", "nested")


@pytest.fixture
def source() -> Iterator[TaskSource]:
    source = TaskSource()
    source.open()
    yield source
    source.close()


@pytest.fixture
def loop(source: TaskSource) -> Iterator[Loop]:
    with stopped_loop() as loop:
        yield loop


@pytest.fixture
def tracers(tmp_path: Path) -> Any:
    return installed(tmp_path, "tracers", TRACERS)


@pytest.fixture(params=WRAPS)
def wrap(request: pytest.FixtureRequest, tracers: Any) -> Wrap:
    found: Wrap = getattr(tracers, request.param)
    return found


def read(source: TaskSource) -> Population:
    return source.read(look())


def counted(source: TaskSource) -> dict[tuple[str, ...], int]:
    return {site.functions: site.count for site in read(source).sites}


def outermost(source: TaskSource) -> dict[str, int]:
    found: dict[str, int] = {}
    for site in read(source).sites:
        found[site.function] = found.get(site.function, 0) + site.count
    return found


class Busy:
    """Keeps a loop in the step of a task until it is released."""

    def __init__(self) -> None:
        self.runs = threading.Event()
        self.goes_on = threading.Event()

    def hold(self) -> None:
        self.runs.set()
        self.goes_on.wait(20)

    @contextmanager
    def meanwhile(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Iterator[None]:
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        try:
            assert self.runs.wait(20)
            yield
        finally:
            self.goes_on.set()
            thread.join(20)


async def feed() -> None:
    await forever()


async def work(busy: Busy) -> None:
    busy.hold()


async def deep(busy: Busy) -> None:
    await settle()
    await work(busy)


async def ticks() -> AsyncIterator[int]:
    await forever()
    yield 1


async def busy_ticks(busy: Busy) -> AsyncIterator[int]:
    busy.hold()
    yield 1


def test_a_wrapped_task_that_waits_is_counted_as_what_is_wrapped(
    source: TaskSource, loop: Loop, wrap: Wrap
) -> None:
    tasks = [loop.create_task(wrap(feed())), loop.create_task(feed())]
    loop.run_until_complete(settle())
    assert counted(source) == {(f"{HERE}.feed", "support.leaks.forever"): 2}
    assert len(tasks) == 2


def test_a_wrapped_task_that_has_not_started_is_counted_as_what_is_wrapped(
    source: TaskSource, loop: Loop, wrap: Wrap
) -> None:
    tasks = [loop.create_task(wrap(feed())), loop.create_task(feed())]
    assert counted(source) == {(f"{HERE}.feed",): 2}
    loop.run_until_complete(settle())
    assert len(tasks) == 2


@pytest.mark.parametrize("body", [work, deep])
def test_a_wrapped_task_that_runs_is_counted_as_what_is_wrapped(
    source: TaskSource, wrap: Wrap, body: Callable[[Busy], Coroutine[Any, Any, Any]]
) -> None:
    busy = Busy()

    async def main() -> None:
        await asyncio.gather(asyncio.ensure_future(wrap(body(busy))))

    with busy.meanwhile(main):
        found = outermost(source)
    assert found == {f"{HERE}.{main.__qualname__}": 1, f"{HERE}.{body.__name__}": 1}


def test_a_task_that_runs_does_not_change_what_the_others_are_counted_as(
    source: TaskSource, wrap: Wrap
) -> None:
    busy = Busy()

    async def main() -> None:
        tasks = [asyncio.ensure_future(wrap(feed())) for _ in range(450)]
        tasks.append(asyncio.ensure_future(wrap(work(busy))))
        await tasks[-1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with busy.meanwhile(main):
        found = outermost(source)
    assert found == {f"{HERE}.{main.__qualname__}": 1, f"{HERE}.work": 1, f"{HERE}.feed": 450}


def test_a_running_task_is_shown_where_it_runs(source: TaskSource, wrap: Wrap) -> None:
    busy = Busy()

    async def main() -> None:
        await asyncio.gather(asyncio.ensure_future(wrap(work(busy))))

    with busy.meanwhile(main):
        (sample,) = [s.sample for s in read(source).sites if s.function == f"{HERE}.work"]
    assert sample is not None
    line = work.__code__.co_firstlineno + 1
    assert [(each.function, each.line) for each in sample.stack] == [(f"{HERE}.work", line)]


def test_a_wrapper_that_enters_something_first_is_looked_through_meanwhile(
    source: TaskSource, loop: Loop, tracers: Any
) -> None:
    inner = feed()
    task = loop.create_task(tracers.entered(inner, tracers.Span(forever)))
    loop.run_until_complete(settle())
    assert counted(source) == {
        (f"{HERE}.feed", "tracers.entered", "tracers.Span.__aenter__", "support.leaks.forever"): 1
    }
    task.cancel()
    inner.close()


def test_a_wrapper_that_runs_itself_has_its_name_alone(source: TaskSource, tmp_path: Path) -> None:
    busy = Busy()
    slow = installed(
        tmp_path,
        "slow",
        """
        async def traced(coro, before):
            coro = [coro]
            before()
            coro, = coro
            return await coro
        """,
    )

    async def main() -> None:
        tasks = [asyncio.ensure_future(slow.traced(feed(), str)) for _ in range(450)]
        await settle()
        tasks.append(asyncio.ensure_future(slow.traced(work(busy), busy.hold)))
        await tasks[-1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with busy.meanwhile(main):
        found = outermost(source)
    assert found == {f"{HERE}.{main.__qualname__}": 1, "slow.traced": 1, f"{HERE}.feed": 450}


def test_an_applications_own_helper_is_what_it_started(source: TaskSource, loop: Loop) -> None:
    limit = asyncio.Semaphore(2)

    async def limited(coro: Coroutine[Any, Any, None]) -> None:
        async with limit:
            await coro

    tasks = [loop.create_task(limited(feed())) for _ in range(2)]
    loop.run_until_complete(settle())
    helper = f"{HERE}.{limited.__qualname__}"
    assert counted(source) == {(helper, f"{HERE}.feed", "support.leaks.forever"): 2}
    assert len(tasks) == 2


def test_a_library_that_awaits_more_than_it_was_given_keeps_its_name(
    source: TaskSource, loop: Loop, tmp_path: Path
) -> None:
    retry = installed(
        tmp_path,
        "retry",
        """
        import asyncio

        async def once_more(coro):
            await asyncio.sleep(0)
            return await coro
        """,
    )
    task = loop.create_task(retry.once_more(feed()))
    loop.run_until_complete(settle())
    assert counted(source) == {("retry.once_more", f"{HERE}.feed", "support.leaks.forever"): 1}
    task.cancel()


def test_a_wrapper_of_a_future_has_its_name(source: TaskSource, loop: Loop, tracers: Any) -> None:
    future: asyncio.Future[None] = loop.create_future()
    task = loop.create_task(tracers.argument(future))
    loop.run_until_complete(settle())
    assert counted(source) == {("tracers.argument",): 1}
    task.cancel()


# The next step of an async generator


def plain(awaitable: Any) -> Any:
    return awaitable


STEPS = {
    "anext": lambda generator: generator.__anext__(),
    "asend": lambda generator: generator.asend(None),
    "athrow": lambda generator: generator.athrow(GeneratorExit),
    "aclose": lambda generator: generator.aclose(),
}


@pytest.fixture(params=[None, *WRAPS])
def perhaps(request: pytest.FixtureRequest, tracers: Any) -> Wrap:
    return plain if request.param is None else getattr(tracers, request.param)


def test_a_task_that_drives_a_generator_is_the_generators(
    source: TaskSource, loop: Loop, perhaps: Wrap
) -> None:
    task = asyncio.ensure_future(perhaps(ticks().__anext__()), loop=loop)
    loop.run_until_complete(settle())
    assert counted(source) == {(f"{HERE}.ticks", "support.leaks.forever"): 1}
    task.cancel()


async def cleans_up() -> AsyncIterator[int]:
    try:
        yield 1
    finally:
        await forever()


@pytest.mark.parametrize("step", ["athrow", "aclose"])
def test_a_task_that_ends_a_generator_is_the_generators(
    source: TaskSource, loop: Loop, perhaps: Wrap, step: str
) -> None:
    generator = cleans_up()
    loop.run_until_complete(generator.__anext__())
    task = asyncio.ensure_future(perhaps(STEPS[step](generator)), loop=loop)
    loop.run_until_complete(settle())
    assert counted(source) == {(f"{HERE}.cleans_up", "support.leaks.forever"): 1}
    task.cancel()


def test_a_running_task_that_drives_a_generator_is_the_generators(
    source: TaskSource, perhaps: Wrap
) -> None:
    busy = Busy()

    async def main() -> None:
        await asyncio.gather(asyncio.ensure_future(perhaps(busy_ticks(busy).__anext__())))

    with busy.meanwhile(main):
        found = outermost(source)
    assert found == {f"{HERE}.{main.__qualname__}": 1, f"{HERE}.busy_ticks": 1}


# Real libraries


def test_a_running_task_of_a_group_of_anyio_is_the_applications(source: TaskSource) -> None:
    busy = Busy()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(feed)
            await settle()
            group.start_soon(work, busy)
            await settle()
            group.cancel_scope.cancel()

    with busy.meanwhile(main):
        found = outermost(source)
    assert found == {f"{HERE}.{main.__qualname__}": 1, f"{HERE}.feed": 3, f"{HERE}.work": 1}


def test_what_asgiref_runs_for_synchronous_code_is_the_applications(source: TaskSource) -> None:
    busy = Busy()

    async def main() -> None:
        def view() -> None:
            asgiref.sync.async_to_sync(work)(busy)

        await asgiref.sync.sync_to_async(view)()

    with busy.meanwhile(main):
        found = outermost(source)
    assert found == {f"{HERE}.{main.__qualname__}": 1, f"{HERE}.work": 1}


def test_what_is_awaited_by_another_means_is_what_the_application_wrote(
    source: TaskSource, loop: Loop
) -> None:
    class Job:
        def __await__(self) -> Any:
            yield from forever().__await__()

    task = asyncio.ensure_future(Job(), loop=loop)
    loop.run_until_complete(settle())
    (functions,) = counted(source)
    assert functions[0].endswith("Job.__await__")
    task.cancel()


INSTRUMENTED = """
import asyncio, logging, threading
from otel_leaks.census.source import Look
from otel_leaks.census.tasks import TaskSource
from otel_leaks.ignores import Ignores

{instrument}

runs, goes_on = threading.Event(), threading.Event()

async def forever():
    await asyncio.get_running_loop().create_future()

async def feed():
    await forever()

async def poll_disk():
    runs.set()
    goes_on.wait(20)

async def main():
    {set_up}
    tasks = [asyncio.create_task(feed()) for _ in range(250)]
    tasks += [asyncio.ensure_future(asyncio.gather(feed(), feed()))]
    for _ in range(10):
        await asyncio.sleep(0)
    await asyncio.create_task(poll_disk())
    tasks[-1].cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

source = TaskSource()
source.open()
thread = threading.Thread(target=asyncio.run, args=(main(),))
thread.start()
runs.wait(20)
found = source.read(Look(0.0, Ignores(), 10, lambda: None))
goes_on.set()
thread.join(20)
print(*sorted((*site.functions, site.count) for site in found.sites), sep="\\n")
"""

INSTRUMENTATIONS = {
    "opentelemetry": (
        "from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor\n"
        "logging.disable()\n"
        "AsyncioInstrumentor().instrument()",
        "pass",
    ),
    "sentry": (
        "import sentry_sdk\nfrom sentry_sdk.integrations.asyncio import AsyncioIntegration",
        'sentry_sdk.init("http://key@127.0.0.1:9/1", integrations=[AsyncioIntegration()],'
        " traces_sample_rate=1.0, transport=lambda envelope: None)",
    ),
}


@pytest.mark.parametrize("name", INSTRUMENTATIONS)
def test_an_instrumentation_changes_nothing_while_a_task_runs(name: str) -> None:
    instrument, set_up = INSTRUMENTATIONS[name]
    done = subprocess.run(
        [sys.executable, "-c", INSTRUMENTED.format(instrument=instrument, set_up=set_up)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "('__main__.feed', '__main__.forever', 252)",
            "('__main__.main', 1)",
            "('__main__.poll_disk', 1)",
        ],
    ), done.stderr
    assert name == "sentry" or done.stderr == ""


def test_the_end_of_a_process_prints_nothing(tmp_path: Path) -> None:
    library = tmp_path / "site-packages"
    library.mkdir()
    (library / "runners.py").write_text(textwrap.dedent(RUNNERS), encoding="utf-8")
    (library / "tracers.py").write_text(textwrap.dedent(TRACERS), encoding="utf-8")
    program = f"""
import sys
sys.path.insert(0, {str(library)!r})
import asyncio, gc, runners, tracers
from otel_leaks.census.source import Look
from otel_leaks.census.tasks import TaskSource
from otel_leaks.ignores import Ignores

async def tick(*_):
    pass

async def main():
    loops = [runners.Loop(tick, 3600)._loop(), runners.repeats(tick)(), runners.Worker().run()]
    tasks = [asyncio.create_task(tracers.closure(each)) for each in loops]
    for _ in range(10):
        await asyncio.sleep(0)
    source = TaskSource()
    source.open()
    found = source.read(Look(0.0, Ignores(), 10, lambda: None))
    print(*sorted({{site.function for site in found.sites}}))

asyncio.run(main())
# As the interpreter does at its end, where what we asked about may outlive our modules.
for name, module in list(sys.modules.items()):
    if name.startswith("otel_leaks.runtime"):
        vars(module).update(dict.fromkeys(vars(module)))
main = tick = runners = tracers = None
sys.modules.pop("runners")
sys.modules.pop("tracers")
gc.collect()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "__main__.main __main__.tick runners.Worker.run\n",
        "",
    )


# Libraries that run functions of the application's, now and then


RUNNERS = """
    import asyncio
    import functools

    class Loop:
        def __init__(self, coro, seconds=0.0):
            self.coro = coro
            self.seconds = seconds
            self.before = None
        async def _hook(self, name):
            hook = getattr(self, name)
            if hook is not None:
                await hook()
        async def _pause(self):
            await asyncio.sleep(self.seconds)
        async def _loop(self, *args, **kwargs):
            await self._hook("before")
            while True:
                await self.coro(*args, **kwargs)
                await self._pause()

    class Slots:
        __slots__ = ("handler", "closed")
        def __init__(self, handler, closed=None):
            self.handler = handler
            self.closed = closed
        async def serve(self):
            while True:
                await self.handler(self)
                await asyncio.sleep(3600)

    async def retry(function, *args, **kwargs):
        while True:
            try:
                return await function(*args, **kwargs)
            except OSError:
                await asyncio.sleep(3600)

    def repeats(function):
        @functools.wraps(function)
        async def repeated(*args):
            while True:
                await function(*args)
                await asyncio.sleep(3600)
        return repeated

    class Worker:
        async def run(self):
            while True:
                await self.work()
                await asyncio.sleep(3600)
        async def work(self):
            pass
"""


async def tick(*_: object) -> None:
    """Do what is done every hour."""


async def tick_and_wait(*_: object) -> None:
    await forever()


async def tick_badly(*_: object) -> None:
    raise ConnectionError


RUNS: dict[str, Callable[[Any, Any], Coroutine[Any, Any, Any]]] = {
    "attribute": lambda library, function: library.Loop(function, 3600)._loop(),
    "method": lambda library, function: library.Loop(_Bound(function).call, 3600)._loop(),
    "partial": lambda library, function: library.Loop(functools.partial(function, 1), 3600)._loop(),
    "slot": lambda library, function: library.Slots(function).serve(),
    "closure": lambda library, function: library.repeats(function)(),
}


class _Bound:
    def __init__(self, function: Any) -> None:
        self.call: Any = types.MethodType(function, self)


@pytest.fixture
def runners(tmp_path: Path) -> Any:
    return installed(tmp_path, "runners", RUNNERS)


@pytest.mark.parametrize("how", RUNS)
def test_a_task_of_a_runner_is_named_after_what_it_runs_also_between_two_runs(
    source: TaskSource, loop: Loop, runners: Any, how: str
) -> None:
    tasks = [loop.create_task(RUNS[how](runners, tick)) for _ in range(3)]
    tasks += [loop.create_task(RUNS[how](runners, tick_and_wait)) for _ in range(2)]
    loop.run_until_complete(settle())
    assert outermost(source) == {f"{HERE}.tick": 3, f"{HERE}.tick_and_wait": 2}
    assert len(tasks) == 5


def test_a_task_of_a_runner_that_retries_is_named_after_what_it_runs(
    source: TaskSource, loop: Loop, runners: Any
) -> None:
    task = loop.create_task(runners.retry(tick_badly, 1))
    loop.run_until_complete(settle())
    assert outermost(source) == {f"{HERE}.tick_badly": 1}
    task.cancel()


def test_between_two_runs_a_task_is_shown_with_the_library_that_runs_it(
    source: TaskSource, loop: Loop, runners: Any
) -> None:
    task = loop.create_task(runners.Loop(tick, 3600)._loop())
    loop.run_until_complete(settle())
    (site,) = read(source).sites
    assert site.functions == (
        f"{HERE}.tick",
        "runners.Loop._loop",
        "runners.Loop._pause",
        "asyncio.tasks.sleep",
    )
    assert site.sample is not None
    assert site.sample.stack[0] == Frame(site.function, __file__, tick.__code__.co_firstlineno)
    task.cancel()


def test_a_method_that_the_application_gave_a_librarys_class_names_its_task(
    source: TaskSource, loop: Loop, runners: Any
) -> None:
    class Mailer(runners.Worker):  # type: ignore[misc]
        async def work(self) -> None:
            pass

    tasks = [loop.create_task(Mailer().run()), loop.create_task(runners.Worker().run())]
    loop.run_until_complete(settle())
    assert outermost(source) == {f"{HERE}.{Mailer.work.__qualname__}": 1, "runners.Worker.run": 1}
    assert len(tasks) == 2


def test_a_runner_inside_a_wrapper_is_looked_through_too(
    source: TaskSource, loop: Loop, runners: Any, wrap: Wrap
) -> None:
    tasks = [loop.create_task(wrap(runners.Loop(tick, 3600)._loop())) for _ in range(3)]
    loop.run_until_complete(settle())
    assert outermost(source) == {f"{HERE}.tick": 3}
    assert len(tasks) == 3


def test_what_a_library_runs_of_its_own_keeps_its_name(
    source: TaskSource, loop: Loop, runners: Any
) -> None:
    task = loop.create_task(runners.Loop(runners.Loop(tick)._pause, 3600)._loop())
    loop.run_until_complete(settle())
    assert outermost(source) == {"runners.Loop._loop": 1}
    task.cancel()
