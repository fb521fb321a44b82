"""Leak, and end as a program does: when it is asked to, by returning from its main function."""

from __future__ import annotations

import asyncio
import logging
import signal

from opentelemetry import metrics, trace

TASKS = 60


async def main() -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    never = asyncio.Event()
    tasks = [asyncio.create_task(never.wait()) for _ in range(TASKS)]
    tracer = trace.get_tracer("app")
    requests = metrics.get_meter("app").create_counter("requests")
    print("waiting", flush=True)
    while not asked.is_set():
        with tracer.start_as_current_span("request"):
            requests.add(1)
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    logging.basicConfig()
    asyncio.run(main())
