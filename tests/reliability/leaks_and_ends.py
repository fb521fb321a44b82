"""
Leak for some seconds, and end as a program does: by returning from its main function.

    leaks_and_ends.py SECONDS [UNTIL]

It goes on until the logger ``otel_leaks`` has said UNTIL, too. Prints the monotonic clock
when it ends: what comes then is the SDK's, ours and the interpreter's.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from opentelemetry import metrics, trace

TASKS = 60


class Said(logging.Handler):
    """Waits for a text."""

    def __init__(self, until: str) -> None:
        super().__init__()
        self.until = until
        self.is_over = not until

    def emit(self, record: logging.LogRecord) -> None:
        self.is_over = self.is_over or self.until in record.getMessage()


async def main(seconds: float, until: str) -> None:
    said = Said(until)
    logging.getLogger("otel_leaks").addHandler(said)
    never = asyncio.Event()
    tasks = [asyncio.create_task(never.wait()) for _ in range(TASKS)]
    tracer = trace.get_tracer("app")
    requests = metrics.get_meter("app").create_counter("requests")
    end = time.monotonic() + seconds
    while time.monotonic() < end or not said.is_over:
        with tracer.start_as_current_span("request"):
            requests.add(1)
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    logging.basicConfig()
    asyncio.run(main(float(sys.argv[1]), "".join(sys.argv[2:])))
    print("ends at", time.monotonic(), flush=True)
