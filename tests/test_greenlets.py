"""Where gevent or eventlet put greenlets in the place of threads the monitor is a real thread."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import logging, sys, time
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

def patch():
    if {library!r} == "gevent":
        from gevent.monkey import patch_all
        patch_all()
    else:
        import eventlet
        eventlet.monkey_patch()

if {patched_first}:
    patch()
from otel_leaks import LeakInstrumentor
said = []

class Notes(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

logging.getLogger("otel_leaks").addHandler(Notes())

def instrument():
    LeakInstrumentor().instrument(
        interval_s=0.05, thread_limit=15, emit="span",
        tracer_provider=TracerProvider(), meter_provider=MeterProvider(),
    )

def wait_for(text):
    # No greenlet gets its turn here, so a monitor that is one would never be heard of.
    deadline = time.monotonic() + 60
    while not any(text in each for each in list(said)):
        assert time.monotonic() < deadline, said

for turn in range(2):
    instrument()
    if turn == 0 and not {patched_first}:
        patch()
    import threading
    never = threading.Event()

    def stuck():
        never.wait()

    threads = [threading.Thread(target=stuck, daemon=True) for _ in range(20)]
    for each in threads:
        each.start()
    time.sleep(0)  # Each greenlet waits.
    wait_for("more than the limit of 15")
    assert "in __main__.stuck" in said[0], said
    LeakInstrumentor().uninstrument()
    assert not [each for each in threading.enumerate() if each.name.startswith("otel-leaks")]
    never.set()
    for each in threads:
        each.join()
    said.clear()
print("done")
"""


@pytest.mark.parametrize("patched_first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_leaks_are_detected_while_no_greenlet_gets_its_turn(
    library: str, patched_first: bool
) -> None:
    # Not imported here: each later fork of this process would be warned of.
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"`pip install {library}` to run this")
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c"),
            textwrap.dedent(PROGRAM).format(library=library, patched_first=patched_first),
        ],
        env={k: v for k, v in os.environ.items() if not k.startswith("OTEL_")},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
