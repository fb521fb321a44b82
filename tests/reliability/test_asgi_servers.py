"""uvicorn, hypercorn and granian: one process, several, and a reload."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from reliability.lives import Planted, changed, compare, monitored, plant, reported
from reliability.results import Row
from reliability.serving import APPS, How, Run, Running

APP, WSGI = "service:app", "service:application"

SERVERS: dict[str, tuple[int, Planted, tuple[str, ...]]] = {
    "uvicorn": (1, "tasks", ("uvicorn", "--host=127.0.0.1", "--port={port}", APP)),
    "uvicorn-workers": (
        *(2, "tasks"),
        ("uvicorn", "--host=127.0.0.1", "--port={port}", "--workers=2", APP),
    ),
    "hypercorn": (1, "tasks", ("hypercorn", "--bind=127.0.0.1:{port}", APP)),
    "hypercorn-workers": (
        *(2, "tasks"),
        ("hypercorn", "--bind=127.0.0.1:{port}", "--workers=2", APP),
    ),
    "granian-asgi": (
        *(2, "tasks"),
        ("granian", "--interface=asgi", "--host=127.0.0.1", "--port={port}", "--workers=2", APP),
    ),
    "granian-wsgi": (
        *(2, "threads"),
        ("granian", "--interface=wsgi", "--host=127.0.0.1", "--port={port}", "--workers=2", WSGI),
    ),
}

SHORT = {"uvicorn-workers", "granian-asgi"}


def command(run: Run, port: int, *, words: tuple[str, ...]) -> list[str]:
    return run.command(*(each.format(port=port) for each in words))


@pytest.mark.parametrize(
    "server",
    [pytest.param(each, marks=[pytest.mark.short] * (each in SHORT)) for each in SERVERS],
)
def test_each_process_is_watched(
    run: Callable[[bool], Run], how: How, row: Row, server: str
) -> None:
    workers, leaking, words = SERVERS[server]
    row.section, row.server, row.variant = "Servers", words[0], how
    options = [each for each in words[1:] if "127.0.0.1" not in each and "{port}" not in each]
    row.done = f"`{' '.join([words[0], *options])}`, a leak in each process, SIGTERM"
    row.expected = "each worker has one monitor and reports as its own instance"
    row.repeat = f"tests/reliability/test_asgi_servers.py -k {server}]"

    def happens(run: Run, program: Running) -> None:
        pids = sorted(program.workers(workers))
        if run.watched:
            monitored(program, pids)
        planted = plant(program, pids)
        if run.watched:
            reported(run.telemetry, planted, leaking)

    compare(run, partial(command, words=words), happens, row)


def test_uvicorn_watches_the_process_that_a_reload_starts(
    run: Callable[[bool], Run], how: How, row: Row, tmp_path: Path
) -> None:
    row.section, row.server, row.variant = "Servers", "uvicorn", how
    row.done = "`uvicorn --reload`, a leak, a file changes, a leak in the next process, SIGINT"
    row.expected = "the new process reports its own leak; the old process's leak is not resolved"
    row.repeat = "tests/reliability/test_asgi_servers.py -k reload"
    watched_folder = tmp_path / "sources"
    watched_folder.mkdir()
    (watched_folder / "touched.py").touch()

    def happens(run: Run, program: Running) -> None:
        (old,) = program.workers(1)
        instances: dict[int, str] = {}
        planted = plant(program, [old])
        if run.watched:
            instances |= reported(run.telemetry, planted, "tasks")
        changed(watched_folder / "touched.py", program, old)
        (new,) = program.workers(1, but=frozenset({old}))
        if run.watched:
            monitored(program, [new])
        planted = plant(program, [new], first=30)
        if run.watched:
            instances |= reported(run.telemetry, planted, "tasks")
            assert len(set(instances.values())) == 2
            assert run.telemetry.spans("python.leak.resolved") == []

    where = (f"--app-dir={APPS}", f"--reload-dir={watched_folder}")
    words = ("uvicorn", "--host=127.0.0.1", "--port={port}", "--reload", *where, APP)
    compare(run, partial(command, words=words), happens, row, by=signal.SIGINT)
