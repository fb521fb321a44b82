"""Celery: each pool, and workers that are recycled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from reliability.lives import compare, monitored, plant, reported
from reliability.results import Row
from reliability.serving import How, Run, Running

POOLS = {"prefork": 2, "threads": 1, "gevent": 1}
"""And in how many processes tasks run."""


def celery(run: Run, port: int, *, options: tuple[str, ...]) -> list[str]:
    worker = run.command("celery", "--app=work", "worker", *options)
    return [run.environment.python, "work_client.py", str(port), *worker]


@pytest.fixture
def broker(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "broker"
    folder.mkdir()
    return {"BROKER": str(folder)}


@pytest.mark.parametrize(
    "pool",
    [pytest.param(each, marks=[pytest.mark.short] * (each == "prefork")) for each in POOLS],
)
def test_each_process_that_runs_tasks_is_watched(
    run: Callable[[bool], Run], how: How, row: Row, pool: str, broker: dict[str, str]
) -> None:
    options = (f"--pool={pool}", "--concurrency=2")
    row.section, row.server, row.variant = "Servers", f"celery, {pool}", how
    row.done = f"`{' '.join(options)}`, a leak in each process, SIGTERM"
    row.expected = "each process that runs tasks has one monitor and reports as its own instance"
    row.repeat = f"tests/reliability/test_celery.py -k {pool}]"

    def happens(run: Run, program: Running) -> None:
        pids = sorted(program.workers(POOLS[pool]))
        if run.watched:
            monitored(program, pids)
        planted = plant(program, pids)
        if run.watched:
            reported(run.telemetry, planted)

    compare(run, partial(celery, options=options), happens, row, variables=broker)


def test_a_recycled_worker_is_watched_anew(
    run: Callable[[bool], Run], how: How, row: Row, broker: dict[str, str]
) -> None:
    options = ("--pool=prefork", "--concurrency=1", "--max-tasks-per-child=15")
    row.section, row.server, row.variant = "Servers", "celery, prefork", how
    row.done = "`--max-tasks-per-child=15`: a leak, its worker is recycled, a leak in the next"
    row.expected = "the new worker reports its own leak; the old worker's leak is not resolved"
    row.repeat = "tests/reliability/test_celery.py -k recycled"

    def happens(run: Run, program: Running) -> None:
        (old,) = program.workers(1)
        instances: dict[int, str] = {}
        planted = plant(program, [old])
        if run.watched:
            instances |= reported(run.telemetry, planted)
        (new,) = program.workers(1, but=frozenset({old}))
        planted = plant(program, [new], first=30)
        if run.watched:
            instances |= reported(run.telemetry, planted)
            assert len(set(instances.values())) == 2
            assert run.telemetry.spans("python.leak.resolved") == []

    compare(run, partial(celery, options=options), happens, row, variables=broker)
