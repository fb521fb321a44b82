"""A module's text has a wombatdocstring in it.

A service that leaks in every way that is detected, and has a secret in every place that a
process has. Secrets are words of their own, read from the environment by their place; those in
the names of threads, pools, spans and routes look like tokens.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import logging
import os
import sys
import threading
from typing import Any

from opentelemetry import baggage, context
from opentelemetry._logs import get_logger_provider
from opentelemetry.sdk._logs import LoggingHandler
from opentelemetry.sdk.trace import TracerProvider

import otel_leaks
from otel_leaks import LeakInstrumentor

SECRETS: dict[str, str] = dict(each.split("=", 1) for each in sys.argv[1].split(","))
VARIABLE = contextvars.ContextVar("VARIABLE", default=SECRETS["contextvar"])
# The application's own spans go nowhere: what is found was sent by otel-leaks.
APPLICATION = TracerProvider().get_tracer("application")

stop = threading.Event()
threads_told = threading.Event()
nameless: list[threading.Thread] = []
stuck: list[Any] = []


class Order:
    """Holds a value in a class, and one in itself."""

    CLASS = SECRETS["class"]

    def __init__(self) -> None:
        self.customer = SECRETS["attribute"]

    def __repr__(self) -> str:
        return SECRETS["repr"]

    def wait(self, argument: str, default: str = SECRETS["default"]) -> None:
        local = SECRETS["local"] + argument + default
        try:
            raise ValueError(SECRETS["exception"] + local)
        except ValueError as error:
            error.args += (self,)
            stop.wait()

    async def notify(self, argument: str, *, keyword: str = SECRETS["keyword"]) -> None:
        """Wait for ever with a secret in everything."""
        local = [SECRETS["local"], argument, keyword]
        try:
            raise KeyError(SECRETS["exception"])
        except KeyError:
            await asyncio.get_running_loop().create_future()
        finally:
            local.clear()


def closing(cell: str) -> Any:
    def closed_over() -> str:
        stop.wait()
        return cell

    return closed_over


class Nameless(threading.Thread):
    """A thread whose name can't be read, once it runs."""

    @property
    def name(self) -> str:
        if nameless:
            raise RuntimeError(f"no name: {SECRETS['raised']}")
        return "nameless"

    @name.setter
    def name(self, value: str) -> None:
        pass


class Listening(logging.Handler):
    """Notes that threads were detected: only then comes one that can't be read."""

    def emit(self, record: logging.LogRecord) -> None:
        if "threads alive" in record.getMessage():
            threads_told.set()


async def serve(order: Order, number: int) -> None:
    """Handle a request, which leaves a task behind."""
    with APPLICATION.start_as_current_span(
        f"GET https://jane:{SECRETS['password']}@host/reset?token={SECRETS['query']}",
        attributes={
            "http.route": f"/resets/{SECRETS['route']}",
            "db.statement": SECRETS["span_attribute"],
        },
    ) as span:
        span.add_event(SECRETS["span_event"])
        task = asyncio.create_task(
            order.notify(SECRETS["argument"]), name=f"order {SECRETS['task_name']} {number}"
        )
        stuck.append(task)


async def forgotten() -> None:
    await asyncio.get_running_loop().create_future()


async def main() -> None:
    order = Order()
    context.attach(baggage.set_baggage("customer", SECRETS["baggage"]))
    VARIABLE.set(SECRETS["contextvar"])
    LeakInstrumentor().instrument(
        interval_s=0.1,
        thread_limit=5,
        task_limit=5,
        outlived_s=0.5,
        outlived_count=5,
        growth_window_s=0.5,
        growth_windows=3,
        growth_floor=5,
        cooldown_s=1.0,
        emit="both",
        origins="all",
    )
    for number in range(12):
        name = f"harvester-{SECRETS['thread_name']} mail {SECRETS['email']} {number}"
        arguments = (SECRETS["argument"],)
        threading.Thread(target=order.wait, args=arguments, name=name, daemon=True).start()
    pool = concurrent.futures.ThreadPoolExecutor(2, f"tenant-{SECRETS['pool_name']}")
    for _ in range(9):
        pool.submit(closing(SECRETS["closure"]))
    # Each leaves its own kind of detection behind, until the parent has seen them all.
    for number in range(100_000):
        await serve(order, number)
        asyncio.create_task(forgotten(), name=SECRETS["task_name"])  # noqa: RUF006
        if threads_told.is_set() and not nameless:
            nameless.append(Nameless(target=stop.wait, daemon=True))
            nameless[0].start()
        if number % 20 == 0:
            gc.collect()
        await asyncio.sleep(0.02)


otel_leaks.configure(sys.argv[2], "careless")
logging.basicConfig(level=logging.INFO, format="2026-01-01 12:00:00 %(levelname)s %(message)s")
logging.getLogger("otel_leaks").addHandler(Listening())
logging.getLogger("asyncio").disabled = True
logging.getLogger("otel_leaks").addHandler(LoggingHandler(logger_provider=get_logger_provider()))
assert os.environ["SECRET"] == SECRETS["environment"]
asyncio.run(main())
