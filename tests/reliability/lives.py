"""The life of a server, once without otel-leaks and once with it, and what must be the same."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from e2e.receiving import eventually
from e2e.serving import free_ports
from reliability.results import Row
from reliability.serving import LATER_S, Run, Running, unexpected
from reliability.telemetry import Telemetry

__all__ = ["Life", "Planted", "changed", "compare", "monitored", "plant", "reported"]

Planted = Literal["threads", "tasks"]

GAUGES = {
    "threads": ("thread", "python.thread.count", "watched.stuck"),
    "tasks": ("asyncio_task", "python.asyncio.task.count", "service.stuck"),
}


@dataclass(frozen=True)
class Life:
    """How one run went."""

    status: int | None
    took_s: float
    stderr: str
    our_log: str


Command = Callable[[Run, int], list[str]]
Happens = Callable[[Run, Running], None]


def compare(
    run: Callable[[bool], Run],
    command: Command,
    happens: Happens,
    row: Row,
    *,
    by: signal.Signals = signal.SIGTERM,
    group: bool = False,
    variables: Mapping[str, str] | None = None,
    kind: type[Running] = Running,
) -> None:
    """
    Run a server without otel-leaks and with it; all that others can see must be the same.

    Args:
        run: Says how to run, see the fixture.
        command: The command line for a port.
        happens: What is done to it, and expected of it, while it runs. Where
            ``run.watched`` is false, nothing of ours is there to be asked for.
        row: Gets what was seen.
        by: The signal that ends it.
        group: Send it to all its processes, as a terminal does.
        variables: Additions to its environment.
        kind: How it is asked for its state.
    """

    def live(run: Run) -> Life:
        (port,) = free_ports(1)
        with run.running(command(run, port), port=port, variables=variables, kind=kind) as program:
            happens(run, program)
            program.stop(by, group=group)
        log = run.our_log.read_text("utf-8") if run.our_log.exists() else ""
        return Life(program.status, program.took_s, program.stderr, log)

    without, watched = (live(run(each)) for each in (False, True))
    assert (watched.status, unexpected(watched.stderr, without.stderr)) == (without.status, [])
    assert watched.took_s < without.took_s + LATER_S
    assert unexpected_in_log(watched.our_log) == []
    row.seen = (
        f"as expected; exit status {watched.status} after {watched.took_s:.1f} s "
        f"({without.took_s:.1f} s without)"
    )


def unexpected_in_log(log: str) -> list[str]:
    """Return the lines of our own logger that do not say that the planted leaks were found."""
    planted = tuple(function for _, _, function in GAUGES.values())
    return [
        line
        for line in log.splitlines()
        if not (line.startswith("WARNING ") and any(each in line for each in planted))
    ]


def plant(program: Running, pids: list[int], *, first: int = 20) -> dict[int, int]:
    """Leak in each of some workers, in each another number; return it by pid."""
    numbers = dict(zip(pids, range(first, first + len(pids)), strict=True))
    for pid, n in numbers.items():
        program.leak(pid, n)
    return numbers


def reported(
    received: Telemetry, planted: dict[int, int], what: Planted = "threads"
) -> dict[int, str]:
    """
    Wait until each worker's leak was counted and detected, from one instance alone.

    Returns:
        The ``service.instance.id`` of each pid.
    """
    kind, gauge, function = GAUGES[what]

    def counted() -> dict[float, list[str]]:
        found: dict[float, list[str]] = {}
        for instance, values in received.latest(gauge).items():
            found.setdefault(values.get(function, 0), []).append(instance)
        return found

    by_count = eventually(counted, lambda found: all(n in found for n in planted.values()))
    instances = {pid: by_count[n] for pid, n in planted.items()}
    assert {pid: len(some) for pid, some in instances.items()} == dict.fromkeys(planted, 1)
    found = {pid: some[0] for pid, some in instances.items()}

    def detected() -> set[str]:
        return {
            each.instance
            for each in received.spans()
            if each.kind == kind and function in each.functions
        }

    eventually(detected, lambda some: some >= set(found.values()))
    return found


def monitored(program: Running, pids: list[int]) -> None:
    """Wait until each worker has exactly one monitor."""
    for pid in pids:
        eventually(
            lambda pid=pid: program.state_of(pid)["monitors"],  # type: ignore[misc]
            lambda n: n == 1,
        )


def changed(file: Path, program: Running, old: int) -> None:
    """
    Change a file until the process that has loaded it is gone.

    Once is not enough: a reloader that has not looked at the file before sees no change.
    """
    for _ in range(20):
        before = file.stat().st_mtime_ns

        def change(before: int = before) -> bool:
            file.write_text("# Changed.\n", "utf-8")
            return file.stat().st_mtime_ns != before

        eventually(change)
        with contextlib.suppress(AssertionError):
            eventually(lambda: old not in program.processes(), within_s=4)
            return
    raise AssertionError(f"process {old} was not replaced when {file.name} changed")
