"""Libraries that change what otel-leaks watches: both work, each as it does without the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.receiving import eventually
from reliability.environment import NEIGHBORS, EnvironmentMissing, ServersEnvironment, environment
from reliability.results import Row
from reliability.serving import APPS, How, Run, unexpected
from support.once import one_at_a_time

SECTION = "Neighbors: other libraries in the same process"
THREADS, TASKS = 20, 23
STUCK_THREADS, STUCK_TASKS = "watched.stuck", "neighbor_life.stuck"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> ServersEnvironment:
    """The neighbors' environment; without one a test fails in CI and is skipped elsewhere."""
    try:
        return environment(tmp_path_factory.mktemp("package") / "site", NEIGHBORS)
    except EnvironmentMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
def how(request: pytest.FixtureRequest) -> How:
    return getattr(request, "param", "in code")


@dataclass(frozen=True)
class Life:
    """What one run came to."""

    status: int | None
    answer: dict[str, Any]
    stderr: str
    took_s: float
    log: list[str]
    counted: dict[str, float]


def live(
    run: Run,
    name: str,
    order: str,
    *,
    command: Sequence[str] = (),
    variables: dict[str, str] | None = None,
    counted: Mapping[str, float],
) -> Life:
    """Run the program until its leaks were counted and detected, and end it."""
    stop = run.folder / "stop"
    line = run.command("python", *command, "neighbor.py", name, order)
    extra = {"STOP": str(stop), **(variables or {})}
    with run.running(line, variables=extra) as program:

        def is_alive() -> bool:
            assert program.process.poll() is None, program.stderr
            return True

        def counts() -> dict[str, float]:
            assert is_alive()
            found: dict[str, float] = {}
            for metric in ("python.thread.count", "python.asyncio.task.count"):
                for values in run.telemetry.latest(metric).values():
                    found.update({each: values[each] for each in counted if each in values})
            return found

        def detected() -> set[str]:
            assert is_alive()
            return {each for span in run.telemetry.spans() for each in span.functions}

        seen: dict[str, float] = {}
        if run.watched:
            seen = eventually(counts, lambda found: found == dict(counted))
            eventually(detected, lambda found: found >= set(counted))
        stop.touch()
        status = program.process.wait(200)
        lines = [each for each in program.stdout.splitlines() if each.startswith("{")]
        answer = json.loads(lines[-1]) if lines else {}
    log = run.our_log.read_text("utf-8").splitlines() if run.our_log.exists() else []
    return Life(status, answer, program.stderr, 0.0, log, seen)


def beside(
    run: Callable[[bool], Run],
    row: Row,
    name: str,
    order: str,
    *,
    command: Sequence[str] = (),
    variables: dict[str, str] | None = None,
    counted: Mapping[str, float] | None = None,
    said: tuple[str, ...] = (),
) -> tuple[Life, Life]:
    """
    Run the program beside a neighbor, without otel-leaks and with it.

    Args:
        run: Says how to run, see the fixture.
        row: Gets what was seen.
        name: The neighbor, a function of ``neighbors.py``.
        order: Whether it comes before otel-leaks or after it.
        command: Options of Python.
        variables: Additions to the environment.
        counted: Leaks by function.
        said: What our log may say beside these leaks.
    """
    counted = {STUCK_THREADS: THREADS, STUCK_TASKS: TASKS} if counted is None else counted
    row.section = SECTION
    row.expected = row.expected or "the same work, exit status and stderr; leaks are counted"
    more = dict(variables or {})
    watched = live(run(True), name, order, command=command, variables=more, counted=counted)
    # As long as that: what a neighbor prints from time to time has its time.
    more["SECONDS"] = str(watched.answer.get("seconds", 0))
    without = live(run(False), name, order, command=command, variables=more, counted=counted)
    assert without.answer.get("outcomes") == ["as expected"], without.stderr
    assert (watched.status, watched.answer["outcomes"]) == (0, ["as expected"])
    assert (without.status, without.answer["monitors"]) == (0, 0)
    assert watched.answer["monitors"] == 1
    assert unexpected(watched.stderr, without.stderr) == []
    known = (*(f"{each}" for each in counted), *said)
    assert [each for each in watched.log if not any(part in each for part in known)] == []
    row.seen = "as expected"
    row.variant = row.variant.strip() if row.variant else order
    return without, watched


ORDERS = pytest.mark.parametrize("order", ["before", "after"])


@ORDERS
@pytest.mark.parametrize(
    "name",
    ["contrib_asyncio", "contrib_threading", "contrib_system_metrics", "contrib_web"],
)
def test_instrumentations_of_opentelemetry(
    run: Callable[[bool], Run], row: Row, name: str, order: str
) -> None:
    row.server = f"OpenTelemetry's {name.removeprefix('contrib_').replace('_', '-')}"
    row.done = "instrumented before otel-leaks or after it"
    row.repeat = f'tests/reliability/test_neighbors.py -k "{name}"'
    beside(run, row, name, order)


@pytest.mark.short
@pytest.mark.parametrize("how", ["zero-code"], indirect=True)
def test_all_instrumentations_of_opentelemetry_at_once(
    run: Callable[[bool], Run], row: Row, how: How
) -> None:
    row.server, row.variant = "OpenTelemetry's asyncio, threading, system-metrics, web", how
    row.done = "`opentelemetry-instrument` turns all of them on"
    beside(run, row, "nothing", "after")


@ORDERS
@pytest.mark.parametrize("name", ["sentry", "ddtrace", "newrelic", "elasticapm"])
def test_agents_for_performance(
    run: Callable[[bool], Run], row: Row, name: str, order: str
) -> None:
    titles = {"sentry": "sentry-sdk", "elasticapm": "elastic-apm"}
    row.server = titles.get(name, name)
    row.done = "its asyncio and threading integrations are on; its exports go nowhere"
    row.repeat = f'tests/reliability/test_neighbors.py -k "{name}"'
    beside(run, row, name, order)


@ORDERS
@pytest.mark.parametrize("name", ["gevent", "eventlet"])
def test_greenlets_in_the_place_of_threads(
    run: Callable[[bool], Run], row: Row, name: str, order: str
) -> None:
    row.server = name
    row.done = "Python's threads are patched before otel-leaks or after it"
    row.repeat = f'tests/reliability/test_neighbors.py -k "{name}"'
    beside(run, row, name, order, counted={STUCK_THREADS: THREADS})


@pytest.mark.parametrize(
    ("name", "server", "done"),
    [
        pytest.param("nest_asyncio", "nest_asyncio", "the program runs in a nested loop"),
        pytest.param("uvloop", "uvloop", "the program runs on its loop"),
        pytest.param("trio", "trio", "a nursery runs in a thread beside asyncio"),
        pytest.param(
            "task_factory",
            "a task factory",
            "creates tasks of its own class, and tasks implemented in Python",
        ),
        pytest.param(
            "odd_tasks",
            "odd objects",
            "`__eq__`, `__hash__`, `__repr__`, `get_name`, ... of tasks, threads and "
            "coroutines hang when otel-leaks calls them",
            marks=pytest.mark.short,
        ),
    ],
)
def test_loops_and_tasks_of_others(
    run: Callable[[bool], Run], row: Row, name: str, server: str, done: str
) -> None:
    row.server, row.done, row.variant = server, done, " "
    row.repeat = f'tests/reliability/test_neighbors.py -k "{name}"'
    said = ("are not counted, since reading them would run code of that class",)
    beside(run, row, name, "after", said=said if name == "odd_tasks" else ())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks(run: Callable[[bool], Run], row: Row) -> None:
    row.server, row.done, row.variant = "eager tasks", "`asyncio.eager_task_factory`", " "
    beside(run, row, "eager_task_factory", "after")


@pytest.fixture(scope="session")
def compiled(servers: ServersEnvironment) -> Path:
    """A folder with a module that Cython and a C compiler made."""
    source = APPS / "compiled.pyx"
    folder = Path(servers.python).parents[1] / "compiled"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    with one_at_a_time(folder):
        found = folder / f"compiled{suffix}"
        if not found.exists() or found.stat().st_mtime < source.stat().st_mtime:
            done = (
                subprocess.run(
                    [servers.program("cythonize"), "-3", "-i", str(folder / source.name)],
                    check=False,
                    capture_output=True,
                    text=True,
                    timeout=300,
                )
                if (folder / source.name).write_bytes(source.read_bytes())
                else None
            )
            if done is None or done.returncode:
                said = done.stderr.strip().splitlines()[-1:] if done is not None else []
                message = f"Cython needs a C compiler and Python's headers: {' '.join(said)}"
                if os.environ.get("CI"):
                    pytest.fail(message, pytrace=False)
                pytest.skip(message)
    return folder


def test_coroutines_of_cython(run: Callable[[bool], Run], row: Row, compiled: Path) -> None:
    row.server, row.variant = "Cython", " "
    row.done = "the leaking coroutines are compiled"
    counted = {STUCK_THREADS: THREADS, "compiled.stuck": TASKS}
    beside(run, row, "cython", "after", variables={"COMPILED": str(compiled)}, counted=counted)


def test_a_loop_that_is_blocked(run: Callable[[bool], Run], row: Row) -> None:
    row.server, row.variant = "a blocked loop", " "
    row.done = "a callback sleeps for two seconds, another computes for one"
    beside(run, row, "blocked_loop", "after")


def test_a_million_tasks_a_minute(run: Callable[[bool], Run], row: Row) -> None:
    row.server, row.variant = "churn", " "
    row.done = "200 tasks are created and awaited in a row, without a pause"
    lives = beside(run, row, "many_tasks", "after")
    without, watched = (
        each.answer["churned"] / each.answer["seconds"] * 60 / 1e6 for each in lives
    )
    row.seen += (
        f"; {watched:.1f} million tasks a minute, a census every 0.2 s ({without:.1f} without)"
    )


@ORDERS
@pytest.mark.parametrize(
    ("name", "server", "done"),
    [
        ("debugger", "bdb", "a debugger traces every line of every thread"),
        ("debugpy", "debugpy", "it listens"),
        ("profiler", "sys.setprofile", "every call of every thread is profiled"),
        ("tracemalloc", "tracemalloc", "started with 10 frames"),
    ],
)
def test_debuggers_and_profilers(  # noqa: PLR0917 - pytest passes them by name
    run: Callable[[bool], Run], row: Row, name: str, server: str, done: str, order: str
) -> None:
    row.server, row.done = server, done
    row.repeat = f'tests/reliability/test_neighbors.py -k "{name}"'
    beside(run, row, name, order)


@pytest.mark.parametrize("core", ["ctrace", "pytrace", "sysmon"])
def test_coverage(run: Callable[[bool], Run], row: Row, core: str, tmp_path: Path) -> None:
    if core == "sysmon" and sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with Python 3.12")
    row.server, row.done, row.variant = "coverage", "it measures all lines", core
    variables = {"COVERAGE_CORE": core, "COVERAGE_FILE": str(tmp_path / "data")}
    options = ("-m", "coverage", "run", "--concurrency=thread")
    beside(run, row, "nothing", "after", command=options, variables=variables)


def test_memray(run: Callable[[bool], Run], row: Row, tmp_path: Path) -> None:
    row.server, row.done, row.variant = "memray", "`memray run`", " "
    options = ("-m", "memray", "run", "--quiet", "--force", "-o", str(tmp_path / "data.bin"))
    beside(run, row, "nothing", "after", command=options)


@ORDERS
@pytest.mark.parametrize("name", ["freezegun", "time_machine"])
def test_frozen_clocks(run: Callable[[bool], Run], row: Row, name: str, order: str) -> None:
    row.server = name.replace("_", "-")
    row.done = "time is frozen before otel-leaks starts, or afterwards"
    row.repeat = f'tests/reliability/test_neighbors.py -k "{name}"'
    beside(run, row, name, order)


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        pytest.param(("-X", "dev"), {}, id="dev"),
        pytest.param(("-W", "error"), {}, id="W-error"),
        pytest.param((), {"PYTHONASYNCIODEBUG": "1"}, id="asyncio-debug"),
    ],
)
def test_options_of_python(
    run: Callable[[bool], Run], row: Row, options: tuple[str, ...], variables: dict[str, str]
) -> None:
    row.server, row.variant = "Python", " "
    row.done = f"`{' '.join(options) or 'PYTHONASYNCIODEBUG=1'}`"
    beside(run, row, "nothing", "after", command=options, variables=variables)


def test_an_interpreter_beside_this_one(run: Callable[[bool], Run], row: Row) -> None:
    row.server, row.variant = "subinterpreter", " "
    row.done = "another interpreter of the process runs code in a thread"
    beside(run, row, "subinterpreter", "after")
