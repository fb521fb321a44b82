"""What blocks an event loop, in programs of their own: found, told apart, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

PROGRAM = """
    import asyncio, contextlib, gc, json, sys, threading, time

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from otel_leaks import LeakInstrumentor

    exported = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    STALLED_S = 0.3
    LeakInstrumentor().instrument(
        interval_s=0.2, stalled_s=STALLED_S, tracer_provider=provider
    )

    def detections():
        return [
            {
                **span.attributes,
                **{f"event {k}": v for event in span.events for k, v in event.attributes.items()},
            }
            for span in exported.get_finished_spans()
            if span.name == "python.leak.detected"
            and span.attributes["python.leak.evidence"] == "stalled"
        ]

    async def until(holds):
        for _ in range(1200):
            if holds():
                return True
            await asyncio.sleep(0.05)
        return False

    async def is_timed():
        # Until the monitor has found this loop; it tells of the loops that it knows.
        loop = asyncio.get_running_loop()
        selector = getattr(loop, "_selector", None)
        if selector is None:
            await asyncio.sleep(2)
            return
        assert await until(lambda: hasattr(selector, "_otel_leaks_meter"))
        await asyncio.sleep(0.1)

    def say(**what):
        print(json.dumps(what), flush=True)
"""


def run(body: str, *, timeout: float = 100) -> Any:
    program = textwrap.dedent(PROGRAM) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "OTEL_METRICS_EXPORTER": "none"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


BLOCKED = """
    def build():
        {how}

    async def export():
        with provider.get_tracer("shop").start_as_current_span("GET /export"):
            build()

    async def main():
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        await is_timed()
        await asyncio.create_task(export())
        await until(exports)
        server.close()

    def exports():
        # On a busy machine something else may have taken long as well.
        return [each for each in detections() if "__main__.export" in each["python.leak.message"]]

    {run}
    say(found=exports())
    LeakInstrumentor().uninstrument()
"""


@pytest.mark.parametrize("how", ["time.sleep(2)", "gone.wait(2)"])
def test_a_call_that_waits_is_found_with_its_task_and_its_span(how: str) -> None:
    how = how.replace("gone", "threading.Event()")
    (found,) = run(BLOCKED.format(how=how, run="asyncio.run(main())"))["found"]
    assert "by __main__.build (<string>:" in found["python.leak.message"]
    assert found["python.leak.message"].endswith(
        "which waited and used no CPU, in task __main__.export, in GET /export"
    )
    assert found["python.leak.stall.cause"] == "waits"
    assert found["event code.function.name"] == "__main__.export"
    assert "in build" in found["event code.stacktrace"]
    assert found["event python.leak.operation"] == "GET /export"
    assert "asyncio.to_thread" in found["event python.leak.hint"]


def test_a_call_that_blocks_a_loop_of_uvloop_is_found() -> None:
    pytest.importorskip("uvloop")
    (found,) = run(BLOCKED.format(how="time.sleep(2)", run="import uvloop; uvloop.run(main())"))[
        "found"
    ]
    assert "by __main__.build (<string>:" in found["python.leak.message"]
    assert found["event code.function.name"] == "__main__.export"


def test_a_call_that_computes_is_found_as_one_that_ran() -> None:
    # On a busy machine it may as well be said that there was no CPU.
    how = "end = time.thread_time() + 2\n        while time.thread_time() < end: pass"
    found = run(BLOCKED.format(how=how, run="asyncio.run(main())"))["found"]
    assert "__main__.build" in found[0]["python.leak.message"]


def test_a_long_garbage_collection_is_told_from_code() -> None:
    # A collection is as long as the callbacks that it calls.
    how = "gc.collect()"
    slow = """
    def slow(phase, info):
        if phase == "stop" and sys._getframe(1).f_code.co_name == "build":
            time.sleep(2)
    gc.callbacks.insert(0, slow)
    """
    (found,) = run(slow + BLOCKED.format(how=how, run="asyncio.run(main())"))["found"]
    assert "the garbage collector ran, in __main__." in found["python.leak.message"]
    assert found["python.leak.stall.cause"] == "gc"
    assert found["event code.function.name"] == "<garbage collection>"


def test_a_program_whose_only_task_computes_delays_nobody() -> None:
    said = run("""
        async def main():
            await is_timed()
            time.sleep(2)
            await asyncio.sleep(0.5)

        asyncio.run(main())
        say(found=detections())
        LeakInstrumentor().uninstrument()
    """)
    assert said == {"found": []}


def test_stopping_restores_the_loop_that_runs() -> None:
    said = run("""
        async def main():
            def state():
                selector = asyncio.get_running_loop()._selector
                return selector, type(selector), type(selector).__mro__, dict(vars(selector))

            before = state()
            await is_timed()
            during, callbacks = state(), len(gc.callbacks)
            LeakInstrumentor().uninstrument()
            after = state()
            say(
                is_back=before == after,
                was_other=before != during,
                callbacks=callbacks - len(gc.callbacks),
            )

        asyncio.run(main())
    """)
    assert said == {"is_back": True, "was_other": True, "callbacks": 1}


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no signal stops a process here")
def test_a_process_that_was_stopped_has_no_stall() -> None:
    program = textwrap.dedent(PROGRAM) + textwrap.dedent("""
        def in_turn():
            say(ready=True)
            # In a turn, for less than a stall: its clock goes on while the process is stopped.
            sys.stdin.readline()

        async def main():
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            await is_timed()
            in_turn()
            await asyncio.sleep(1)
            say(found=detections())
            server.close()

        asyncio.run(main())
        LeakInstrumentor().uninstrument()
    """)
    program = program.replace("STALLED_S = 0.3", "STALLED_S = 2.0")
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert json.loads(process.stdout.readline()) == {"ready": True}
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        # Nothing else tells a pause from a stall but that it is long.
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"found": []}
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
