"""
How each neighbor is set up. A function may return what runs the program's coroutine, or
``greenlets`` where threads have become these.
"""

from __future__ import annotations

import asyncio
import collections.abc
import itertools
import logging
import os
import sys
import threading
import types
from collections.abc import Callable, Coroutine
from typing import Any

NOBODY = "http://127.0.0.1:9"  # The discard port, which refuses.

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def nothing() -> None:
    """Set nothing up: for options of the interpreter, and programs that run others."""


# Instrumentations of OpenTelemetry.


def contrib_asyncio() -> None:
    os.environ["OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE"] = "stuck,doubled,failing"
    os.environ["OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED"] = "true"
    from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor

    AsyncioInstrumentor().instrument()


def contrib_threading() -> None:
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    ThreadingInstrumentor().instrument()


def contrib_system_metrics() -> None:
    from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor

    SystemMetricsInstrumentor().instrument()


def contrib_web() -> Run:
    """Instrument FastAPI and aiohttp's client, and run a server and a client of theirs."""
    import aiohttp
    import fastapi
    import uvicorn
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor().instrument()
    AioHttpClientInstrumentor().instrument()
    app = fastapi.FastAPI()

    @app.get("/{n}")
    async def answer(n: int) -> int:
        return 2 * n

    async def both(life: Coroutine[Any, Any, Any]) -> Any:
        config = uvicorn.Config(app, port=0, log_level="critical")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        (port,) = {each.getsockname()[1] for one in server.servers for each in one.sockets}
        working = asyncio.create_task(life)
        async with aiohttp.ClientSession() as session:
            while not working.done():
                async with session.get(f"http://127.0.0.1:{port}/21") as response:
                    assert await response.json() == 42
                await asyncio.sleep(0.01)
        server.should_exit = True
        await serving
        return await working

    return lambda life: asyncio.run(both(life))


# Agents for performance. Each sends what it sends to a port that nobody listens on.


def sentry() -> None:
    import sentry_sdk
    from sentry_sdk.integrations.asyncio import AsyncioIntegration
    from sentry_sdk.integrations.threading import ThreadingIntegration

    class Nowhere(sentry_sdk.transport.Transport):
        def capture_envelope(self, envelope: Any) -> None:
            """Drop it."""

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=Nowhere,
        traces_sample_rate=1.0,
        profiles_sample_rate=1.0,
        integrations=[AsyncioIntegration(), ThreadingIntegration(propagate_scope=True)],
    )


def ddtrace() -> None:
    os.environ.update(
        DD_TRACE_AGENT_URL=NOBODY,
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_RUNTIME_METRICS_ENABLED="false",
        DD_CRASHTRACKING_ENABLED="false",
        DD_TRACE_STARTUP_LOGS="false",
    )
    logging.getLogger("ddtrace").setLevel(logging.CRITICAL)
    import ddtrace as library
    import ddtrace.auto

    assert ddtrace.auto
    assert library.tracer


def newrelic() -> None:
    os.environ.update(
        NEW_RELIC_LICENSE_KEY="0" * 40,
        NEW_RELIC_APP_NAME="neighbor",
        NEW_RELIC_HOST="127.0.0.1",
        NEW_RELIC_PORT="9",
        NEW_RELIC_LOG="/dev/null",
        NEW_RELIC_STARTUP_TIMEOUT="0",
        NEW_RELIC_DEVELOPER_MODE="true",
    )
    import newrelic.agent

    newrelic.agent.initialize()
    newrelic.agent.register_application(timeout=0)


def elasticapm() -> None:
    import elasticapm as library

    library.Client(
        server_url=NOBODY,
        service_name="neighbor",
        disable_send=True,
        cloud_provider="none",
        central_config=False,
        metrics_interval="1s",
    )
    library.instrument()


# Greenlets.


def gevent() -> str:
    import gevent.monkey

    gevent.monkey.patch_all()
    return "greenlets"


def eventlet() -> str:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import eventlet as library

        library.monkey_patch()
    return "greenlets"


# Loops, factories, and tasks of others.


def nest_asyncio() -> Run:
    import nest_asyncio as library

    library.apply()

    async def within(life: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.get_running_loop().run_until_complete(life)

    return lambda life: asyncio.run(within(life))


def uvloop() -> Run:
    import uvloop as library

    def run(life: Coroutine[Any, Any, Any]) -> Any:
        loop = library.new_event_loop()
        try:
            return loop.run_until_complete(life)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    return run


def trio() -> Run:
    """Run trio beside asyncio, in a thread of its own."""
    import trio as library

    def run(life: Coroutine[Any, Any, Any]) -> Any:
        ended = threading.Event()
        turns = 0

        async def child() -> None:
            nonlocal turns
            while not ended.is_set():
                turns += 1
                await library.sleep(0.01)

        async def nursery() -> None:
            async with library.open_nursery() as opened:
                for _ in range(5):
                    opened.start_soon(child)

        thread = threading.Thread(target=library.run, args=(nursery,))
        thread.start()
        try:
            return asyncio.run(life)
        finally:
            ended.set()
            thread.join()
            assert turns

    return run


def _run_with(factory: Callable[..., Any]) -> Run:
    async def first(life: Coroutine[Any, Any, Any]) -> Any:
        asyncio.get_running_loop().set_task_factory(factory)
        return await life

    return lambda life: asyncio.run(first(life))


def task_factory() -> Run:
    """Have tasks of a class of its own, and some that are written in Python."""
    python_task = asyncio.tasks._PyTask  # type: ignore[attr-defined]  # Private, 3.10 to 3.15.

    class Own(asyncio.Task):  # type: ignore[type-arg]
        """Knows more."""

    turn = itertools.cycle((Own, python_task))

    def make(loop: Any, coroutine: Any, **options: Any) -> Any:
        return next(turn)(coroutine, loop=loop, **options)

    return _run_with(make)


def eager_task_factory() -> Run:
    return _run_with(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - 3.12 and later


def _asked() -> None:
    """Hang where the monitor of otel-leaks asks."""
    import watched  # type: ignore[import-not-found]

    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(watched._MONITOR):
            threading.Event().wait()
        frame = frame.f_back


def _hangs(base: type, *names: str) -> type:
    """Return a class below *base* each of whose *names* hangs when otel-leaks asks for it."""

    def answer(name: str) -> property:
        def get(self: Any) -> Any:
            _asked()
            return getattr(super(odd, self), name)

        return property(get, lambda *_: None)

    def equal(self: object, other: object) -> bool:
        _asked()
        return self is other

    def number(self: object) -> int:
        _asked()
        return id(self) >> 4

    def text(self: object) -> str:
        _asked()
        raise RuntimeError("no text")

    more = {"__eq__": equal, "__hash__": number, "__repr__": text}
    odd = type("Odd", (base,), {**{name: answer(name) for name in names}, **more})
    return odd


class _Awaitable:
    """A coroutine of its own make, whose attributes hang."""

    def send(self, _: object) -> None:
        return None

    def throw(self, *raised: Any) -> None:
        raise raised[0]

    def close(self) -> None:
        """End."""

    def __await__(self) -> Any:
        yield

    @property
    def cr_code(self) -> None:
        _asked()

    gi_code = cr_frame = cr_await = gi_frame = ag_code = __name__ = cr_code


def odd_tasks() -> Run:
    """Have tasks, threads and coroutines whose every answer hangs when otel-leaks asks."""
    collections.abc.Coroutine.register(_Awaitable)
    members = ("get_coro", "get_name", "get_context", "get_stack", "done", "get_loop")
    task, thread = _hangs(asyncio.Task, *members), _hangs(threading.Thread, "daemon")
    never = threading.Event()

    def make(loop: Any, coroutine: Any, **options: Any) -> Any:
        return task(coroutine, loop=loop, **options)

    async def first(life: Coroutine[Any, Any, Any]) -> Any:
        for _ in range(5):
            thread(target=never.wait, daemon=True).start()
        loop = asyncio.get_running_loop()
        odd = [task(_Awaitable(), loop=loop) for _ in range(5)]
        loop.set_task_factory(make)
        try:
            return await life
        finally:
            never.set()
            for each in odd:
                each.cancel()

    return lambda life: asyncio.run(first(life))


def cython() -> Run:
    """Have the coroutines that leak compiled by Cython."""
    sys.path.insert(0, os.environ["COMPILED"])
    import compiled  # type: ignore[import-not-found]
    import neighbor_life  # type: ignore[import-not-found]

    neighbor_life.stuck = compiled.stuck
    return asyncio.run


def blocked_loop() -> Run:
    """Block the loop for 3 seconds, in C code that holds no GIL, and in Python."""
    import time

    async def first(life: Coroutine[Any, Any, Any]) -> Any:
        asyncio.get_running_loop().call_later(0.3, time.sleep, 2)
        asyncio.get_running_loop().call_later(1.0, _compute, 1.0)
        return await life

    return lambda life: asyncio.run(first(life))


def _compute(seconds: float) -> None:
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def many_tasks() -> Run:
    """Create tasks as fast as can be beside the program: over a million a minute."""

    async def none() -> None:
        """End at once."""

    churned = 0

    async def churn() -> None:
        nonlocal churned
        while True:
            await asyncio.gather(*(none() for _ in range(200)))
            churned += 200

    async def both(life: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.create_task(churn())
        found: dict[str, Any] = await life
        task.cancel()
        return {**found, "churned": churned}

    return lambda life: asyncio.run(both(life))


# Debuggers, tracers, profilers.


def debugger() -> None:
    """Have ``bdb`` trace all threads."""
    import bdb

    class Quiet(bdb.Bdb):
        """Stops nowhere."""

        def user_line(self, _: types.FrameType) -> None:
            self.set_continue()

    debugger = Quiet()
    debugger.reset()
    threading.settrace(debugger.trace_dispatch)
    sys.settrace(debugger.trace_dispatch)


def debugpy() -> None:
    """Have debugpy listen, with its threads and its tracing."""
    import debugpy as library  # noqa: T100

    library.configure(subProcess=False)
    library.listen(("127.0.0.1", 0))  # noqa: T100


def profiler() -> None:
    """Have every call of every thread profiled."""

    def note(frame: types.FrameType, event: str, argument: object) -> None:
        assert frame

    threading.setprofile(note)
    sys.setprofile(note)


def tracemalloc() -> None:
    import tracemalloc as library

    library.start(10)


# Clocks.


def freezegun() -> None:
    import freezegun as library

    library.freeze_time("2026-01-01", real_asyncio=True).start()


def time_machine() -> None:
    import time_machine as library

    library.travel("2026-01-01", tick=False).start()


# Other interpreters in this process.


def subinterpreter() -> Run:
    """Run Python in an interpreter beside this one while leaks are watched."""
    options: dict[str, Any] = {}
    try:
        import _interpreters as library  # type: ignore[import-not-found]  # 3.13

        options["config"] = "legacy"
    except ImportError:
        import _xxsubinterpreters as library  # type: ignore[import-not-found]  # 3.10 to 3.12

        options["isolated"] = False

    code = "import time\nfor _ in range(300): sum(range(1000)); time.sleep(0.005)"

    def run(life: Coroutine[Any, Any, Any]) -> Any:
        other = library.create(**options)

        def within() -> None:
            failed = library.run_string(other, code)
            assert failed is None, failed

        thread = threading.Thread(target=within)
        thread.start()
        try:
            return asyncio.run(life)
        finally:
            thread.join()
            library.destroy(other)

    return run
