"""uWSGI, which forks its workers without telling Python."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from e2e.serving import free_ports
from reliability.environment import CACHE
from reliability.lives import compare, monitored, plant, reported
from reliability.results import Row
from reliability.serving import APPS, How, Run, Running
from support.once import one_at_a_time

VERSION = "2.0.31"

OPTIONS = {
    "prefork": ("--master", "--processes=2"),
    "threads": ("--master", "--processes=2", "--enable-threads", "--threads=2"),
    "lazy": ("--master", "--processes=2", "--lazy-apps"),
    "no-master": ("--processes=2",),
    "fork-hooks": ("--master", "--processes=2", "--py-call-uwsgi-fork-hooks"),
    "osafterfork": ("--master", "--processes=2", "--py-call-osafterfork"),
}
SHORT = {"prefork"}
ASLEEP = {
    "OTEL_BSP_SCHEDULE_DELAY": "5000",
    "OTEL_BLRP_SCHEDULE_DELAY": "5000",
    "OTEL_METRIC_EXPORT_INTERVAL": "3000",
}
"""
As the SDK does it by default: its threads in the master sleep while uWSGI forks. One that is
awake then may own the GIL, which the worker inherits and nobody releases, with or without us.
"""


@pytest.fixture(scope="session")
def uwsgi() -> Path:
    """The server, built by pip with a C compiler; kept under the cache."""
    folder = CACHE / "uwsgi" / f"{platform.python_version()}-{VERSION}"
    program = folder / "bin" / "uwsgi"
    with one_at_a_time(CACHE / "uwsgi"):
        if not program.exists():
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
                    *("--disable-pip-version-check", "--target", str(folder)),
                    f"uwsgi=={VERSION}",
                ],
                capture_output=True,
                check=False,
                text=True,
                timeout=900,
            )
            if done.returncode:
                word = f"uWSGI could not be built; it needs a C compiler: {done.stderr[-300:]}"
                if os.environ.get("CI"):
                    pytest.fail(word, pytrace=False)
                pytest.skip(word)
    return program


class Plain(Run):
    """
    The program without the SDK as well.

    In such a worker the SDK has none of its threads, and waits half a minute for each of them
    as it ends: there is nothing to compare with.
    """

    def variables(self) -> dict[str, str]:
        return {**super().variables(), "INSTRUMENT": "nothing"}


@pytest.fixture
def runs(run: Callable[[bool], Run]) -> Callable[[bool], Run]:
    def to_run(watched: bool) -> Run:
        made = run(watched)
        if watched:
            return made
        return Plain(made.environment, made.telemetry, made.folder, "in code", watched=False)

    return to_run


def command(
    run: Run, port: int, *, program: Path, options: tuple[str, ...], app: str = "service.py"
) -> list[str]:
    return run.command(
        str(program),
        f"--http-socket=127.0.0.1:{port}",
        f"--wsgi-file={APPS / app}",
        f"--home={run.environment.bin.parent}",
        f"--chdir={APPS}",
        f"--pythonpath={APPS}",
        *("--need-app", "--die-on-term", "--disable-logging"),
        *options,
    )


@pytest.mark.parametrize(
    "options", [pytest.param(each, marks=[pytest.mark.short] * (each in SHORT)) for each in OPTIONS]
)
def test_each_worker_answers_and_is_watched(
    runs: Callable[[bool], Run], how: How, row: Row, uwsgi: Path, options: str
) -> None:
    row.section, row.server, row.variant = "uWSGI", f"uWSGI {VERSION}, {options}", how
    row.done = f"`{' '.join(OPTIONS[options])}`, a leak in each worker, SIGTERM"
    row.expected = "each worker answers, has one monitor, and reports as its own instance"
    row.repeat = f'tests/reliability/test_uwsgi.py -k "each_worker and {options}"'

    def happens(run: Run, program: Running) -> None:
        pids = sorted(program.workers(2))
        if run.watched:
            monitored(program, pids)
        planted = plant(program, pids)
        if run.watched:
            reported(run.telemetry, planted)

    compare(
        runs,
        partial(command, program=uwsgi, options=OPTIONS[options]),
        happens,
        row,
        group=options == "no-master",  # Without one, nobody tells worker 2 to end.
        variables=ASLEEP,
    )


@pytest.mark.parametrize("how", ["in code"], indirect=True)
def test_hooks_of_the_application_are_called_too(
    runs: Callable[[bool], Run], row: Row, uwsgi: Path
) -> None:
    row.section, row.server = "uWSGI", f"uWSGI {VERSION}"
    row.done = "`uwsgi.post_fork_hook` set before and chained after `instrument()`"
    row.expected = "all hooks are called in each worker, which has one monitor"
    row.repeat = "tests/reliability/test_uwsgi.py -k hooks_of_the_application"

    def happens(run: Run, program: Running) -> None:
        found = program.workers(2)
        assert {tuple(each["hooks"]) for each in found.values()} == {("postfork", "hook")}
        if run.watched:
            monitored(program, sorted(found))

    compare(
        runs,
        partial(command, program=uwsgi, options=OPTIONS["prefork"], app="uwsgi_hooks.py"),
        happens,
        row,
        variables=ASLEEP,
    )


@pytest.mark.parametrize("how", ["in code", "zero-code"], indirect=True)
@pytest.mark.parametrize(
    "form",
    [
        pytest.param("prefork, 3 starts", marks=pytest.mark.short),
        "prefork, 100 starts",
        "lazy, 30 starts",
    ],
)
def test_every_worker_answers_in_each_of_many_starts(
    run: Callable[[bool], Run],
    how: How,
    row: Row,
    uwsgi: Path,
    form: str,
) -> None:
    options, starts = form.split(", ", maxsplit=1)[0], int(form.split()[1])
    row.section, row.server, row.variant = "uWSGI", f"uWSGI {VERSION}, {options}", how
    row.done = f"{starts} starts of two workers"
    row.expected = "two workers answer after each start, with one monitor each"
    row.repeat = f'tests/reliability/test_uwsgi.py -k "many_starts and {starts} and {options}"'
    watched = run(True)
    for start in range(starts):
        (port,) = free_ports(1)
        line = command(watched, port, program=uwsgi, options=OPTIONS[options])
        with watched.running(line, port=port, variables=ASLEEP) as program:
            monitored(program, sorted(program.workers(2)))
            assert "died" not in program.stdout + program.stderr, f"in start {start}"
            program.stop(signal.SIGTERM)
    row.seen = f"2 of 2 workers in all {starts} starts"
