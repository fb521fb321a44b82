"""Django's own server, with its reloader and without."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from reliability.lives import changed, compare, monitored, plant, reported
from reliability.results import Row
from reliability.serving import How, Run, Running


def runserver(run: Run, port: int, *options: str) -> list[str]:
    return run.command("python", "django_manage.py", "runserver", *options, f"127.0.0.1:{port}")


@pytest.fixture
def touched(tmp_path: Path) -> Path:
    """A module of the site; the reloader looks at its time of change."""
    file = tmp_path / "sources" / "touched.py"
    file.parent.mkdir()
    file.touch()
    return file


def test_the_serving_process_is_watched(
    run: Callable[[bool], Run], how: How, row: Row, touched: Path
) -> None:
    row.section, row.server, row.variant = "Servers", "Django runserver", how
    row.done = "`--noreload`, a leak, SIGINT"
    row.expected = "the process has one monitor and reports"
    row.repeat = "tests/reliability/test_django.py -k serving"

    def happens(run: Run, program: Running) -> None:
        (pid,) = program.workers(1)
        if run.watched:
            monitored(program, [pid])
        planted = plant(program, [pid])
        if run.watched:
            reported(run.telemetry, planted)

    compare(
        *(run, lambda run, port: runserver(run, port, "--noreload"), happens, row),
        by=signal.SIGINT,
        variables={"TOUCHED": str(touched.parent)},
    )


def test_the_process_that_the_reloader_starts_is_watched(
    run: Callable[[bool], Run], how: How, row: Row, touched: Path
) -> None:
    row.section, row.server, row.variant = "Servers", "Django runserver", how
    row.done = "a leak, a file changes, a leak in the next process, SIGINT"
    row.expected = "the new process reports its own leak; the old process's leak is not resolved"
    row.repeat = "tests/reliability/test_django.py -k reloader"

    def happens(run: Run, program: Running) -> None:
        (old,) = program.workers(1)
        instances: dict[int, str] = {}
        planted = plant(program, [old])
        if run.watched:
            instances |= reported(run.telemetry, planted)
        changed(touched, program, old)
        (new,) = program.workers(1, but=frozenset({old}))
        if run.watched:
            monitored(program, [new])
        planted = plant(program, [new], first=30)
        if run.watched:
            instances |= reported(run.telemetry, planted)
            assert len(set(instances.values())) == 2
            assert run.telemetry.spans("python.leak.resolved") == []

    compare(
        *(run, runserver, happens, row),
        by=signal.SIGINT,
        group=True,
        variables={"TOUCHED": str(touched.parent)},
    )
