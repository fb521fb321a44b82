"""Nobody changes the application: opentelemetry-instrument and environment variables alone."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policies import OPENABLE

COMMAND = Path(sys.executable).with_name(
    "opentelemetry-instrument.exe" if os.name == "nt" else "opentelemetry-instrument"
)

# The applications know nothing of us; they end when a census has surely been taken: a
# handler of their own hears of the detection.
HEARS = """
import asyncio, logging, threading

told = threading.Event()

class Handler(logging.Handler):
    def emit(self, record):
        if "more than the limit" in record.getMessage():
            told.set()

logging.getLogger("otel_leaks").addHandler(Handler())
"""
LEAKING = (
    HEARS
    + """
async def fetch():
    await asyncio.get_running_loop().create_future()

async def refresh():
    await fetch()

async def main():
    tasks = []
    for _ in range(12):
        tasks.append(asyncio.create_task(refresh()))
        for _ in range(3):
            await asyncio.sleep(0)  # Each stands where it waits before the next begins.
    await asyncio.get_running_loop().run_in_executor(None, told.wait, 20)
    for task in tasks:
        task.cancel()

asyncio.run(main())
print("the application has ended")
"""
)
QUIET = (
    HEARS
    + """
from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
print("monitors", [t.name for t in threading.enumerate() if t.name.startswith("otel-leaks")])
print("asyncio", AsyncioInstrumentor().is_instrumented_by_opentelemetry)

async def main():
    task = asyncio.create_task(asyncio.sleep(3600))
    if any(t.name.startswith("otel-leaks") for t in threading.enumerate()):
        await asyncio.get_running_loop().run_in_executor(None, told.wait, 20)
    task.cancel()

asyncio.run(main())
"""
)


class Ended(NamedTuple):
    stdout: str
    stderr: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """What the console exporters wrote: JSON objects, one after the other."""
        decoder = json.JSONDecoder()
        found = []
        at = self.stdout.find("{")
        while at != -1:
            document, end = decoder.raw_decode(self.stdout, at)
            found.append(document)
            at = self.stdout.find("{", end)
        return found

    def span(self, name: str) -> dict[str, Any]:
        (span,) = [each for each in self.documents if each.get("name") == name]
        return span

    @property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """The points of each metric in the last collection."""
        collections = [each for each in self.documents if "resource_metrics" in each]
        return {
            metric["name"]: metric["data"]["data_points"]
            for resource in collections[-1]["resource_metrics"]
            for scope in resource["scope_metrics"]
            for metric in scope["metrics"]
        }


def run(program: str, *flags: str, **environ: str) -> Ended:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    console = {
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "console",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "OTEL_PYTHON_LEAKS_TASK_LIMIT": "1",
        "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.05",
    }
    done = subprocess.run(
        [str(COMMAND), *flags, sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        check=False,
        text=True,
        timeout=90,
        env={**clean, **console, **environ},
    )
    assert done.returncode == 0, done.stderr
    return Ended(done.stdout, done.stderr)


@pytest.fixture(scope="module")
def leaking() -> Ended:
    """Run the leaking application once, with two options by variable."""
    return run(
        LEAKING,
        OTEL_PYTHON_LEAKS_TASK_LIMIT="10",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.0001",
    )


def test_the_application_runs_to_its_end(leaking: Ended) -> None:
    assert "the application has ended" in leaking.stdout


def test_the_detection_is_exported_with_the_place_of_the_leak(leaking: Ended) -> None:
    span = leaking.span("python.leak.detected")
    assert {
        key: span["attributes"][f"python.leak.{key}"] for key in ("kind", "evidence", "limit")
    } == {"kind": "asyncio_task", "evidence": "threshold", "limit": 10}
    (sample, *_) = span["events"]
    stack = sample["attributes"]["code.stacktrace"].splitlines()
    assert (
        span["parent_id"],
        sample["name"],
        sample["attributes"]["code.function.name"],
        [line.rpartition(" ")[2] for line in stack],
    ) == (None, "python.leak.sample", "__main__.refresh", ["refresh", "fetch"])


def test_the_numbers_and_the_limits_are_exported(leaking: Ended) -> None:
    metrics = leaking.metrics
    assert {
        "python.thread.count",
        "python.asyncio.task.count",
        "python.thread.limit",
        "python.asyncio.task.limit",
        "python.leak.open",
        "python.leak.detections",
        "python.leak.census.duration",
    } <= set(metrics)
    assert [point["value"] for point in metrics["python.asyncio.task.limit"]] == [10]
    detections = {
        tuple(sorted(point["attributes"].values())): point["value"]
        for point in metrics["python.leak.detections"]
    }
    zeros = {tuple(sorted(pair)): 0 for pair in OPENABLE}
    assert detections == {**zeros, ("asyncio_task", "threshold"): 1}


def test_the_application_sees_nothing_but_our_warning(leaking: Ended) -> None:
    assert leaking.stderr == ""


def test_it_is_on_where_it_is_installed_and_off_when_it_is_disabled() -> None:
    on = run(QUIET)
    off = run(QUIET, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="leaks")
    assert [ended.stdout.splitlines()[:2] for ended in (on, off)] == [
        ["monitors ['otel-leaks-watch']", "asyncio True"],
        ["monitors []", "asyncio True"],
    ]
    assert "python.thread.limit" in on.stdout
    assert "python." not in off.stdout


def test_a_bad_variable_stops_neither_the_application_nor_other_instrumentations() -> None:
    ended = run(
        QUIET,
        OTEL_PYTHON_LEAKS_THREAD_LIMIT="many",
        OTEL_PYTHON_LEAKS_IGNORE='ignore_thread("a")] + [ignore_thread("b")',
    )
    assert ended.stdout.splitlines()[:2] == ["monitors ['otel-leaks-watch']", "asyncio True"]
    told = [line for line in ended.stderr.splitlines() if "OTEL_PYTHON_LEAKS" in line]
    assert [line.partition(" must be ")[0].rpartition(" ")[2] for line in told] == [
        "OTEL_PYTHON_LEAKS_THREAD_LIMIT",
        "OTEL_PYTHON_LEAKS_IGNORE",
    ]
    assert "Traceback" not in ended.stderr


def test_the_help_of_the_command_shows_our_flags() -> None:
    done = subprocess.run(
        [str(COMMAND), "--help"], capture_output=True, check=True, text=True, timeout=60
    )
    flags = [word for word in done.stdout.split() if word.startswith("--leaks_")]
    assert {
        "--leaks_interval_s",
        "--leaks_thread_limit",
        "--leaks_task_limit",
        "--leaks_max_sites",
        "--leaks_max_frames",
        "--leaks_cooldown_s",
        "--leaks_ignore",
    } <= set(flags)


def test_a_flag_of_the_command_sets_the_option() -> None:
    ended = run(QUIET, "--leaks_thread_limit", "123")
    assert [point["value"] for point in ended.metrics["python.thread.limit"]] == [123]


def test_the_sdk_can_be_disabled_altogether() -> None:
    ended = run(QUIET, OTEL_SDK_DISABLED="true")
    assert "asyncio" in ended.stdout
    assert "python." not in ended.stdout


# A configuration file

FILE = """
file_format: "1.0-rc.2"
tracer_provider:
  processors:
    - simple: {exporter: {console: {}}}
instrumentation/development:
  python:
    leaks: %s
"""


def run_with_file(tmp_path: Path, leaks: str) -> Ended:
    needs("opentelemetry.configuration", "opentelemetry-configuration")
    if sys.version_info >= (3, 15) and importlib.util.find_spec("yaml") is None:
        pytest.skip("PyYAML has no wheel for 3.15, and without it OTEL_CONFIG_FILE is not read")
    path = tmp_path / "otel.yaml"
    path.write_text(FILE % leaks, encoding="utf-8")
    return run(LEAKING, OTEL_CONFIG_FILE=str(path), OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="asyncio")


def needs(module: str, distribution: str) -> None:
    """Skip where a part is missing; in CI that is a failure."""
    if importlib.util.find_spec(module) is None:
        word = f"needs {distribution}: pip install {distribution}"
        if os.environ.get("CI"):
            pytest.fail(word)
        pytest.skip(word)


def test_the_options_of_a_configuration_file_are_taken(tmp_path: Path) -> None:
    ended = run_with_file(tmp_path, "{task_limit: 7}")
    assert ended.span("python.leak.detected")["attributes"]["python.leak.limit"] == 7
    assert "configuration file" not in ended.stderr


def test_a_bad_value_in_a_configuration_file_is_named_and_its_default_taken(
    tmp_path: Path,
) -> None:
    ended = run_with_file(
        tmp_path,
        "{task_limit: 7, interval_s: -1, max_frames: many, speed: 3, tracer_provider: mine}",
    )
    assert ended.span("python.leak.detected")["attributes"]["python.leak.limit"] == 7
    told = [line for line in ended.stderr.splitlines() if "configuration file" in line]
    assert told == [
        "unknown option 'speed', 'tracer_provider' of the configuration file has no effect; "
        f"known options are {', '.join(LeakConfig.names())}",
        "interval_s of the configuration file must be a number of seconds > 0 and <= 86400, "
        "got -1; the default of 10.0 is taken",
        "max_frames of the configuration file must be a whole number from 1 to 200, got 'many'; "
        "the default of 32 is taken",
    ]
    assert "Traceback" not in ended.stderr
