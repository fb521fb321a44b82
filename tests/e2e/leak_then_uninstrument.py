"""
A program that sets everything up in code: ``leak_then_uninstrument.py ENDPOINT``.

Prints how many seconds ``uninstrument()`` took after a detection.
"""

from __future__ import annotations

import logging
import sys
import threading
import time

import otel_leaks


class Heard(logging.Handler):
    """Notes that a leak was told of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.found = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        if "more than the limit" in self.messages[-1]:
            self.found.set()


def main(endpoint: str) -> None:
    heard = Heard()
    logging.getLogger("otel_leaks").addHandler(heard)
    gate = threading.Event()
    for _ in range(10):
        threading.Thread(target=gate.wait).start()
    otel_leaks.configure(endpoint=endpoint, service_name="shop")
    otel_leaks.LeakInstrumentor().instrument(thread_limit=5, interval_s=0.01)
    assert heard.found.wait(100), heard.messages
    started = time.monotonic()
    otel_leaks.LeakInstrumentor().uninstrument()
    print(f"{time.monotonic() - started:.3f}")
    gate.set()


if __name__ == "__main__":
    main(sys.argv[1])
