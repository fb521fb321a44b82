"""gunicorn: each class of workers, preloaded or not, recycled, and reloaded."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

import pytest

from e2e.receiving import eventually
from reliability.lives import Planted, compare, monitored, plant, reported
from reliability.results import Row
from reliability.serving import How, Run, Running
from reliability.telemetry import Telemetry, over_grpc

CLASSES = {
    "sync": ("service:application", "--worker-class=sync"),
    "gthread": ("service:application", "--worker-class=gthread", "--threads=4"),
    "gevent": ("service:application", "--worker-class=gevent"),
    "uvicorn": ("service:app", "--worker-class=uvicorn_worker.UvicornWorker"),
}

SHORT = {"sync"}

each_class = pytest.mark.parametrize(
    "workers",
    [pytest.param(each, marks=[pytest.mark.short] * (each in SHORT)) for each in CLASSES],
)


def gunicorn(run: Run, port: int, *, workers: str, more: tuple[str, ...]) -> list[str]:
    app, *options = CLASSES[workers]
    return run.command("gunicorn", f"--bind=127.0.0.1:{port}", *options, *more, app)


def leaking(workers: str) -> Planted:
    return "tasks" if workers == "uvicorn" else "threads"


@each_class
@pytest.mark.parametrize("preload", [False, True], ids=["plain", "preload"])
def test_each_worker_is_watched(
    run: Callable[[bool], Run], how: How, row: Row, workers: str, preload: bool
) -> None:
    more = ("--workers=2", *(("--preload",) if preload else ()))
    row.section, row.server, row.variant = "Servers", f"gunicorn, {workers}", how
    row.done = f"`{' '.join(more)}`, a leak in each worker, SIGTERM"
    row.expected = "each worker has one monitor and reports as its own instance"
    row.repeat = f'tests/reliability/test_gunicorn.py -k "each_worker and {workers}"'

    def happens(run: Run, program: Running) -> None:
        pids = sorted(program.workers(2))
        if run.watched:
            monitored(program, pids)
        planted = plant(program, pids)
        if run.watched:
            reported(run.telemetry, planted, leaking(workers))

    compare(run, partial(gunicorn, workers=workers, more=more), happens, row)


@each_class
def test_a_recycled_worker_is_watched_anew(
    run: Callable[[bool], Run], how: How, row: Row, workers: str
) -> None:
    row.section, row.server, row.variant = "Servers", f"gunicorn, {workers}", how
    row.done = "`--max-requests=150`: a leak, its worker is recycled, a leak in the next"
    row.expected = "the new worker reports its own leak; the old worker's leak is not resolved"
    row.repeat = f'tests/reliability/test_gunicorn.py -k "recycled and {workers}"'

    def happens(run: Run, program: Running) -> None:
        (old,) = program.workers(1)
        instances: dict[int, str] = {}
        if run.watched:
            monitored(program, [old])
        planted = plant(program, [old])
        if run.watched:
            instances |= reported(run.telemetry, planted, leaking(workers))
        # What it took to come here was less than half of what ends a worker.
        for _ in range(100):
            program.get()
        (new,) = program.workers(1, but=frozenset({old}))
        planted = plant(program, [new], first=30)
        if run.watched:
            instances |= reported(run.telemetry, planted, leaking(workers))
            assert len(set(instances.values())) == 2
            assert run.telemetry.spans("python.leak.resolved") == []

    more = ("--workers=1", "--max-requests=150")
    compare(run, partial(gunicorn, workers=workers, more=more), happens, row)


@each_class
@pytest.mark.parametrize("preload", [False, True], ids=["plain", "preload"])
def test_a_reload_by_sighup_watches_the_new_workers(
    run: Callable[[bool], Run], how: How, row: Row, workers: str, preload: bool
) -> None:
    more = ("--workers=2", *(("--preload",) if preload else ()))
    row.section, row.server, row.variant = "Servers", f"gunicorn, {workers}", how
    row.done = f"`{' '.join(more)}`, a leak in each worker, SIGHUP, a leak in each new worker"
    row.expected = "the new workers report their own leaks; the old workers' leaks are not resolved"
    row.repeat = f'tests/reliability/test_gunicorn.py -k "sighup and {workers}"'

    compare(run, partial(gunicorn, workers=workers, more=more), partial(reloads, workers), row)


@pytest.mark.parametrize("workers", ["sync", "uvicorn"])
def test_the_worker_after_a_killed_one_is_watched(
    run: Callable[[bool], Run], how: How, row: Row, workers: str
) -> None:
    row.section, row.server, row.variant = "Servers", f"gunicorn, {workers}", how
    row.done = "a leak, its worker is killed (SIGKILL), a leak in the next"
    row.expected = "the new worker reports its own leak; the old worker's leak is not resolved"
    row.repeat = f'tests/reliability/test_gunicorn.py -k "killed and {workers}"'

    def happens(run: Run, program: Running) -> None:
        (old,) = program.workers(1)
        instances: dict[int, str] = {}
        planted = plant(program, [old])
        if run.watched:
            instances |= reported(run.telemetry, planted, leaking(workers))
        os.kill(old, signal.SIGKILL)
        (new,) = program.workers(1, but=frozenset({old}))
        if run.watched:
            monitored(program, [new])
        planted = plant(program, [new], first=30)
        if run.watched:
            instances |= reported(run.telemetry, planted, leaking(workers))
            assert len(set(instances.values())) == 2
            assert run.telemetry.spans("python.leak.resolved") == []

    compare(run, partial(gunicorn, workers=workers, more=("--workers=1",)), happens, row)


@pytest.mark.parametrize("preload", [False, True], ids=["plain", "preload"])
def test_a_reload_by_sighup_watches_the_new_workers_over_grpc(
    run: Callable[[bool], Run], how: How, row: Row, received: Telemetry, preload: bool
) -> None:
    more = ("--workers=2", *(("--preload",) if preload else ()))
    row.section, row.server, row.variant = "Servers", "gunicorn, sync", how
    row.done = f"`{' '.join(more)}`, OTLP over gRPC, as before and after SIGHUP"
    row.expected = "the new workers report their own leaks; the old workers' leaks are not resolved"
    row.repeat = "tests/reliability/test_gunicorn.py -k grpc"
    with over_grpc(received) as endpoint:
        compare(
            *(run, partial(gunicorn, workers="sync", more=more), partial(reloads, "sync"), row),
            variables={
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            },
        )


def reloads(workers: str, run: Run, program: Running) -> None:
    old = sorted(program.workers(2))
    instances: dict[int, str] = {}
    planted = plant(program, old)
    if run.watched:
        instances |= reported(run.telemetry, planted, leaking(workers))
    program.process.send_signal(signal.SIGHUP)
    new = sorted(program.workers(2, but=frozenset(old)))
    eventually(program.processes, lambda left: not set(left) & set(old))
    if run.watched:
        monitored(program, new)
    planted = plant(program, new, first=30)
    if run.watched:
        instances |= reported(run.telemetry, planted, leaking(workers))
        assert len(set(instances.values())) == 4
        assert run.telemetry.spans("python.leak.resolved") == []
