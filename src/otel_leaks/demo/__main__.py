"""
The shop as a separate service: ``python -m otel_leaks.demo ENDPOINT TASK_LIMIT [busy]``.

Prints ``port N`` when it accepts requests, and ends when its standard input does, so that
it never outlives its parent process.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import uvicorn

from otel_leaks import LeakInstrumentor, configure
from otel_leaks.demo.busy_shop import busy_shop
from otel_leaks.demo.shop import shop

INTERVAL_S = 0.5
"""Seconds between two censuses: shorter than a service's default, as a person is watching."""
FAREWELL_S = 3.0
"""Time limit of its end, seconds: without a receiver the SDK would retry for a while."""


# These show within a minute what takes several in a service.
BUSY: Mapping[str, Any] = {
    "origins": "all",
    "outlived_s": 2.0,
    "outlived_count": 1,
    "cooldown_s": 15.0,
}


def main(endpoint: str, task_limit: int, *, is_busy: bool) -> None:
    """Serve until standard input ends."""
    configure(endpoint, service_name="demo-shop")
    options = BUSY if is_busy else {}
    LeakInstrumentor().instrument(task_limit=task_limit, interval_s=INTERVAL_S, **options)

    server = uvicorn.Server(
        uvicorn.Config(
            busy_shop() if is_busy else shop(),
            loop="asyncio",
            log_level="warning",
            timeout_graceful_shutdown=1,
            ws="none",
        )
    )
    # The package does not count threads with such a name.
    threading.Thread(
        target=_end_with_input, args=(server,), name="otel-leaks-demo", daemon=True
    ).start()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"port {listening.getsockname()[1]}", flush=True)
        server.run(sockets=[listening])


def _end_with_input(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True
    time.sleep(FAREWELL_S)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), is_busy=sys.argv[3:] == ["busy"])
