"""A detection arrives whatever the application's sampler drops."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from e2e.receiving import Collector, eventually
from e2e.serving import Program, instrumented

pytestmark = pytest.mark.e2e

ROUNDS = 50
PROTOCOLS = ["grpc", "http/protobuf", "grpc", "http/protobuf"]
"""One for each program; they run at once, as looking takes at most 1 % of a core each."""
PROGRAM = Path(__file__).with_name("leak_and_fix.py")


def test_200_of_200_detections_arrive_when_one_trace_in_a_hundred_is_sampled(
    receiver: Collector, tmp_path: Path
) -> None:
    with ExitStack() as at_end:
        programs = []
        for n, protocol in enumerate(PROTOCOLS):
            variables = {
                **receiver.exporting(protocol),
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.01",
                "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.01",
                "OTEL_PYTHON_LEAKS_TASK_LIMIT": "15",
                # What comes back sooner would be the same detection.
                "OTEL_PYTHON_LEAKS_COOLDOWN_S": "0.05",
            }
            command = instrumented(sys.executable, str(PROGRAM), str(ROUNDS), "20")
            program = Program(command, variables, tmp_path / f"program-{n}.log")
            at_end.callback(program.stop)
            programs.append(program)
        for program in programs:
            assert program.wait(500) == 0, program.log

    for each in ("python.leak.detected", "python.leak.resolved"):
        spans = eventually(partial(receiver.spans, each), lambda spans: len(spans) >= 200)
        assert len({span.trace_id for span in spans}) == 200
    assert len(receiver.spans("request")) < 100  # Two are to be expected.
