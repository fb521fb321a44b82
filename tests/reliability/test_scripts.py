"""Programs that are no servers: a short job, children of multiprocessing, a notebook's kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reliability.lives import compare, monitored, plant, reported, unexpected_in_log
from reliability.results import Row
from reliability.serving import LATER_S, How, Run, Running, unexpected


@pytest.mark.short
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_each_child_of_multiprocessing_is_watched(
    run: Callable[[bool], Run], how: How, row: Row, method: str
) -> None:
    row.section, row.server, row.variant = "Servers", "multiprocessing", how
    row.done = f"{method}: two children, a leak in each, the parent ends them"
    row.expected = "each child has one monitor and reports as its own instance"
    row.repeat = f'tests/reliability/test_scripts.py -k "multiprocessing and {method}]"'

    def happens(run: Run, program: Running) -> None:
        pids = sorted(program.workers(2))
        if run.watched:
            monitored(program, pids)
        planted = plant(program, pids)
        if run.watched:
            reported(run.telemetry, planted)

    def command(run: Run, port: int) -> list[str]:
        return run.command("python", "children.py", method, str(port))

    compare(run, command, happens, row)


def test_the_kernel_of_a_notebook_is_watched(
    run: Callable[[bool], Run], how: How, row: Row
) -> None:
    row.section, row.server, row.variant = "Servers", "Jupyter", how
    row.done = "a cell leaks, the kernel is shut down"
    row.expected = "the kernel has one monitor and reports"
    row.repeat = "tests/reliability/test_scripts.py -k notebook"

    def happens(run: Run, program: Running) -> None:
        (pid,) = program.workers(1)
        if run.watched:
            monitored(program, [pid])
        planted = plant(program, [pid])
        if run.watched:
            reported(run.telemetry, planted)

    def command(run: Run, port: int) -> list[str]:
        kernel = run.command("python", "-m", "ipykernel_launcher")
        return [run.environment.python, "notebook.py", str(port), *kernel]

    compare(run, command, happens, row)


@pytest.mark.short
def test_a_short_job_sends_its_metrics_once_and_ends_as_soon(
    run: Callable[[bool], Run], how: How, row: Row
) -> None:
    row.section, row.server, row.variant = "Servers", "plain script", how
    row.done = "a job that leaks 20 threads and ends before any metric is exported"
    row.expected = "its metrics are exported once, by the SDK as it shuts down"
    row.repeat = "tests/reliability/test_scripts.py -k job"
    lives = []
    for watched in (False, True):
        how_to = run(watched)
        with how_to.running(
            how_to.command("python", "job.py", "20"),
            variables={"OTEL_METRIC_EXPORT_INTERVAL": "3600000"},
        ) as program:
            program.wait()
        lives.append(program)
        assert list(how_to.telemetry.collections().values()) == [1] * watched
    without, with_us = lives
    assert (with_us.status, unexpected(with_us.stderr, without.stderr)) == (without.status, [])
    log = how_to.our_log.read_text("utf-8") if how_to.our_log.exists() else ""
    assert unexpected_in_log(log) == []
    assert with_us.took_s < without.took_s + LATER_S
    row.seen = (
        f"as expected; exit status {with_us.status} {with_us.took_s:.1f} s after its last line "
        f"({without.took_s:.1f} s without)"
    )
