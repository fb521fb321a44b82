"""
Answers the command from inside of the inspected process, in a thread of its own.

The same code serves a private copy, injected by ``sys.remote_exec``, and a process that opted in.
It takes the same census as production: what can be read from another thread without calling or
holding the application's objects.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

from otel_leaks.attach.pulse import Pulse
from otel_leaks.attach.why import Why
from otel_leaks.attach.wire import MAX_REQUEST_BYTES, VERSION, Socket, Wire
from otel_leaks.runtime import native

if TYPE_CHECKING:
    from otel_leaks.census import CensusTaker
    from otel_leaks.model import Kind, Population, Site

__all__ = ["Maker", "answer", "be_a_guest", "make_taker"]

PAUSE_S = 0.0005
"""Sleep between two slices, seconds, as in production's monitor."""
CALIBRATION_S = 0.05
"""How long the loops are measured before the first census, seconds."""
PAUSES_PER_CHECK = 50
"""Pauses between two checks whether the command is still there."""
MAX_SITES = 100
"""Sites of a kind that are sampled and sent."""

# The values of Linux and macOS, as in _socket; this does not run on Windows.
_PEEK = 0x2
_DONTWAIT = 0x40 if sys.platform == "linux" else 0x80


class Maker(Protocol):
    """Creates the object that takes the censuses of one visit."""

    def __call__(self, pause: Callable[[], None], max_sites: int, /) -> CensusTaker:
        """Return a taker that calls *pause* between slices."""


def be_a_guest(connection: Socket) -> None:
    """Answer from a private copy, in a process that may never have seen this package."""
    from otel_leaks.runtime import forks

    forks.stay_unwatched()
    answer(connection, make_taker)


def make_taker(
    pause: Callable[[], None],
    max_sites: int,
    *,
    providers: Callable[[], Iterable[object]] = tuple,
) -> CensusTaker:
    """
    Return the object that takes the censuses of a visit; it patches nothing.

    Args:
        pause: Called between slices.
        max_sites: Sites of a kind that are sampled.
        providers: Returns telemetry providers whose threads are not counted, in addition to those
            that are set globally.
    """
    # One import at a time, so that the application's threads can run between them.
    for name in ("ignores", "runtime.threads", "census.threads", "census.tasks", "census"):
        __import__(f"otel_leaks.{name}")
        pause()
    from otel_leaks.census import CensusTaker, Executors
    from otel_leaks.census.tasks import TaskSource
    from otel_leaks.census.threads import ThreadSource
    from otel_leaks.ignores import IN_PRODUCTION, Ignores
    from otel_leaks.origins.production import Creations

    # Never opened, as opening would patch.
    return CensusTaker(
        ignores=Ignores(IN_PRODUCTION),
        max_sites=max_sites,
        pause=pause,
        sources=(ThreadSource, TaskSource),
        # Reads what an instrumented process has recorded; records nothing itself.
        creations=Creations(),
        executors=Executors(),
        providers=providers,
    )


def answer(connection: Socket, make: Maker) -> None:
    """
    Answer requests until there are no more.

    Args:
        connection: The connection to the command.
        make: Creates the object that takes the censuses; called at the first request.

    Raises:
        OSError: The command is gone.
        ValueError: It sent something other than a request.
    """
    wire = Wire(connection, MAX_REQUEST_BYTES)
    taker: CensusTaker | None = None
    number = 0

    def pause() -> None:
        nonlocal number
        number += 1
        if number % PAUSES_PER_CHECK == 0:
            _check(connection)
        native.sleep(PAUSE_S)

    wire.send(_hello())
    while (request := wire.receive()) is not None:
        started = native.monotonic()
        # Per request: between two looks nothing is measured, and no loop is held.
        pulse = Pulse(_loops())
        # Finding the loops is one step, during which no other thread runs.
        found_s = native.monotonic() - started
        try:
            pulse.calibrate(CALIBRATION_S)
            try:
                if request.get("history"):
                    message = {"history": _history()}
                else:
                    taker = taker or make(pause, MAX_SITES)
                    message = _look(taker, request, pause)
            except OSError:  # The command is gone.
                raise
            except Exception as error:  # The command reports it, and this side goes on.
                message = {"error": f"{type(error).__name__}: {error}"}
            pauses = pulse.pauses()
        finally:
            blocked = pulse.end()
        longest_s = max(pauses.during_s, found_s)
        message["wall_s"] = native.monotonic() - started
        message["pauses"] = pauses._replace(during_s=longest_s, blocked=blocked)._asdict()
        wire.send(message)


def _history() -> Any:
    """Return what the process itself recorded of its last minutes; None if it records nothing."""
    # A private copy finds the recorder that the process uses, of whichever version.
    recorder = sys.modules.get("otel_leaks.monitor.recorder")
    read = getattr(recorder, "history", None)
    return read() if read is not None else None


def _check(connection: Socket) -> None:
    """End a census if the command is gone."""
    with contextlib.suppress(BlockingIOError):
        if connection.recv(1, _PEEK | _DONTWAIT) == b"":
            raise ConnectionResetError


def _hello() -> dict[str, Any]:
    from otel_leaks.libraries import roots

    return {
        "version": VERSION,
        "pid": os.getpid(),
        "python": sys.version.partition(" ")[0],
        "library_roots": list(roots()),
    }


def _loops() -> list[Any]:
    from otel_leaks.runtime.heap import living
    from otel_leaks.runtime.loops import loop_roots

    classes = loop_roots()
    return list(living(*classes)) if classes else []


def _look(taker: CensusTaker, request: dict[str, Any], pause: Callable[[], None]) -> dict[str, Any]:
    from otel_leaks.ignores import IN_PRODUCTION, Ignores, parse

    ignores = Ignores((*IN_PRODUCTION, *parse(str(request.get("ignore", "")))))
    kinds: Collection[Kind] | None = request.get("kinds")
    # Which workers of a pool are busy is seen where its threads are counted.
    read = kinds if kinds is None or "thread_pool" not in kinds else {*kinds, "thread"}
    asked = request.get("why")
    why = None if asked is None else _make_why(str(asked), pause)
    if why is None:
        census = taker.take(ignores=ignores, kinds=read)
    else:
        # A site that is not among the largest is sampled as well if its fingerprint is given.
        census = taker.take(ignores=ignores, kinds=read, sampled=(str(asked),), shown=why.shown)
    if kinds is not None:
        asked_for = tuple(each for each in census.populations if each.kind in kinds)
        census = replace(census, populations=asked_for)
    ages_s = ages_of_threads()
    pause()
    found: dict[str, Any] = {}
    if why is not None:
        found["why"] = why.look(site for each in census.populations for site in each.sites)
        pause()
        census = replace(census, populations=tuple(map(why.added, census.populations)))
    found["census"] = {
        "cpu_s": census.cpu_s,
        "populations": [_population(each, ages_s, pause) for each in census.populations],
        "pools": None if census.pools is None else [asdict(each) for each in census.pools],
        "failures": [asdict(each) for each in (*census.failures, *census.unjudged)],
    }
    if why is None:
        from otel_leaks.runtime.finished_tasks import MANY_FINISHED, MOST_FINISHED

        pause()
        found["census"]["finished"] = [
            {"function": name, "count": count}
            for name, count in _finished(census.of("asyncio_task"), pause)[:MOST_FINISHED]
            if count >= MANY_FINISHED
        ]
    return found


def _finished(tasks: Population | None, pause: Callable[[], None]) -> list[tuple[str, int]]:
    """Return the number of finished tasks of each function, largest first."""
    from otel_leaks.runtime.finished_tasks import ARE_REGISTERED, finished_by_function

    if tasks is None:
        return []
    if ARE_REGISTERED and tasks.retained is not None:  # The census has already counted them.
        return [(site.function, site.count) for site in tasks.retained.sites]
    return [(name, len(refs)) for name, refs in finished_by_function(pause).items()]


def _make_why(pattern: str, pause: Callable[[], None]) -> Why:
    # One import at a time, so that the application's threads can run between them.
    for name in ("walks", "paths", "exit_functions", "roots", "loop_parts", "holders"):
        __import__(f"otel_leaks.runtime.{name}")
        pause()
    return Why(pattern, pause)


def _population(
    population: Population, ages_s: dict[int, float], pause: Callable[[], None]
) -> dict[str, Any]:
    sites = []
    # Beyond MAX_SITES only sites that were asked for have a sample.
    more = [each for each in population.sites[MAX_SITES:] if each.sample is not None]
    for each in (*population.sites[:MAX_SITES], *more):
        sites.append(_site(each, ages_s))
        pause()
    return {
        "kind": population.kind,
        "count": population.count,
        "site_count": population.site_count,
        "sites": sites,
        "hidden": [asdict(each) for each in population.hidden],
        "unreadable": list(population.unreadable),
    }


def _site(site: Site, ages_s: dict[int, float]) -> dict[str, Any]:
    # These fields are for detection policies, and may hold hundreds of numbers.
    few = replace(site, followed=None, newest=None, outlived=None, ended=None)
    plain = asdict(replace(few, refusals=(), refusing=None))
    sample = plain["sample"]
    if sample is not None:
        sample["age_s"] = max(sample["age_s"], ages_s.get(sample["thread_id"], 0.0))
        plain["age_s"] = max(plain["age_s"], sample["age_s"])
    return plain


def ages_of_threads() -> dict[int, float]:
    """Return the seconds since each thread started, by its ident; empty if not known."""
    from otel_leaks.runtime.threads import native_ids

    ages = {}
    with contextlib.suppress(Exception):  # Only known on Linux with /proc.
        # Like the field in /proc, this counts from boot and includes time in suspend.
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        ticks = os.sysconf("SC_CLK_TCK")
        for ident, number in native_ids().items():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/self/task/{number}/stat", "rb") as file:  # noqa: PTH123
                    after_name = file.read().rpartition(b") ")[2].split()
                ages[ident] = max(0.0, now - int(after_name[19]) / ticks)
    return ages
