"""
A program that leaks and fixes its leak, again and again: ``leak_and_fix.py ROUNDS TASKS``.

Each round is a request, a span that the sampler may drop. It hears the warnings on the
logger ``otel_leaks``, as any application can, to know when a leak was found.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from opentelemetry import trace

WITHIN_S = 100
APART_S = 0.1
"""Between two rounds: above the cooldown that the test sets."""


class Heard(logging.Handler):
    """Sets an event of the loop for each telling."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.loop = asyncio.get_running_loop()
        self.found = asyncio.Event()
        self.over = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        event = self.found if record.levelno == logging.WARNING else self.over
        self.loop.call_soon_threadsafe(event.set)


async def main(rounds: int, tasks: int) -> None:
    heard = Heard()
    logger = logging.getLogger("otel_leaks")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(heard)
    tracer = trace.get_tracer("leak_and_fix")
    for _ in range(rounds):
        heard.found.clear()
        heard.over.clear()
        reply = asyncio.Event()
        with tracer.start_as_current_span("request"):
            leaked = [asyncio.create_task(reply.wait()) for _ in range(tasks)]
            await asyncio.wait_for(heard.found.wait(), WITHIN_S)
            reply.set()
            await asyncio.gather(*leaked)
            await asyncio.wait_for(heard.over.wait(), WITHIN_S)
        await asyncio.sleep(APART_S)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
