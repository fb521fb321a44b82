"""
The monitor: when to look, what opens, what is told again, and what ends.

Its thread is a daemon, sleeps almost always, and never raises into the application.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from otel_leaks.census import CensusEnded, CensusTaker
from otel_leaks.config import LeakConfig
from otel_leaks.detect import backlog as _backlog
from otel_leaks.detect import destroyed as _destroyed
from otel_leaks.detect import growth as _growth
from otel_leaks.detect import outlived as _outlived
from otel_leaks.detect import threshold as _threshold
from otel_leaks.detect.growth import Growth
from otel_leaks.log import log as _log
from otel_leaks.masks import masked_path
from otel_leaks.model import EVIDENCES, Census, Detection, Evidence, Failure, Finding, Kind, Pool

__all__ = [
    "OPENABLE",
    "Change",
    "Ledger",
    "Listener",
    "Watch",
    "findings",
    "growth_of",
    "limits",
]

OPENABLE: tuple[tuple[Kind, Evidence], ...] = (
    *_threshold.OPENS,
    *_growth.OPENS,
    *_outlived.OPENS,
    *_destroyed.OPENS,
)
"""The pairs of kind and evidence that any policy can open. A new policy adds its own."""

CPU_SHARE = 0.01
"""The part of one core that looking may take."""
LONGEST_COOLDOWN_S = 3600.0
"""The longest pause between two tellings, unless the first one is longer."""
PAUSE_S = 0.0005
"""Sleep between two slices of a census: the application's loop gets its turn."""
JOIN_S = 5.0
"""How long stopping waits for the thread, which a stuck log handler may hold."""


EXIT_JOIN_S = 0.5
"""The same as the interpreter ends; a census that is half done ends within a slice."""


_Key = tuple[Kind, Evidence, "str | None"]


class Listener(Protocol):
    """Hears what the watch sees. What it raises is logged once and goes no further."""

    def opened(self, detection: Detection) -> None:
        """Hear of a finding that opened."""

    def told_again(self, detection: Detection) -> None:
        """Hear of a finding that is still open after its cooldown."""

    def resolved(self, detection: Detection) -> None:
        """Hear of a finding that ended."""

    def looked(self, census: Census, opened: tuple[Detection, ...]) -> None:
        """Hear of a census, with the detections that are open after it."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a detection in one census."""

    what: Literal["opened", "told_again", "resolved"]
    detection: Detection


def limits(config: LeakConfig) -> dict[Kind, int | None]:
    """Return the threshold of each kind."""
    return {"thread": config.thread_limit, "asyncio_task": config.task_limit}


def growth_of(config: LeakConfig, pause: Callable[[], None] = lambda: None) -> Growth | None:
    """Return an empty history of growth, None when that is turned off."""
    if config.growth_floor is None:
        return None
    return Growth(
        window_s=config.growth_window_s,
        windows=config.growth_windows,
        floor=config.growth_floor,
        max_sites=config.max_sites,
        pause=pause,
    )


def findings(
    census: Census,
    opened: Iterable[Detection],
    config: LeakConfig,
    growth: Growth | None = None,
) -> tuple[Finding, ...]:
    """
    Ask every policy.

    Args:
        census: The newest census.
        opened: The detections that were open before it.
        config: The policies' options.
        growth: The history of all censuses before it; this one is entered into it.
    """
    opened = tuple(opened)
    marks = {
        evidence: {
            each.finding.fingerprint or "" for each in opened if each.finding.evidence == evidence
        }
        for evidence in EVIDENCES
    }
    open_pairs = {(each.finding.kind, each.finding.evidence) for each in opened}
    return (
        *_threshold.threshold(
            census,
            limits=limits(config),
            open_kinds={kind for kind, evidence in open_pairs if evidence == "threshold"},
            max_sites=config.max_sites,
        ),
        *(growth.look(census) if growth is not None else ()),
        *_outlived.outlived(
            census,
            limit_s=config.outlived_s,
            at_least=config.outlived_count,
            open_marks=marks["outlived"],
            max_sites=config.max_sites,
        ),
        *_destroyed.destroyed(census, quiet_s=config.cooldown_s, max_sites=config.max_sites),
    )


class Ledger:
    """
    Keeps the detections from opening to end.

    Args:
        cooldown_s: Seconds until an open detection is told again; then twice that, up
            to an hour.
    """

    def __init__(self, cooldown_s: float) -> None:
        self._cooldown_s = cooldown_s
        self._open: dict[object, Detection] = {}
        self._tell_at: dict[object, float] = {}

    @property
    def opened(self) -> tuple[Detection, ...]:
        """The detections that are open, in the order in which they opened."""
        return tuple(self._open.values())

    def update(self, census: Census, found: Iterable[Finding]) -> tuple[Change, ...]:
        """
        Enter the findings of a census.

        Args:
            census: A detection of a kind that this census could not read stays as it is.
            found: All findings of this census.

        Returns:
            What is to be told, ends first.
        """
        now = census.taken_at
        by_key = {each.key: each for each in found}
        unread = {failure.kind for failure in census.failures}
        changes = []
        for key, detection in list(self._open.items()):
            if key not in by_key and detection.finding.kind not in unread:
                del self._open[key], self._tell_at[key]
                changes.append(Change("resolved", replace(detection, seen_at=now)))
        for key, finding in by_key.items():
            known = self._open.get(key)
            if known is None:
                detection = Detection(
                    finding,
                    opened_at=now,
                    seen_at=now,
                    peak=finding.count,
                    refers_to=self._told_before(finding),
                )
                self._open[key] = detection
                self._tell_at[key] = now + self._cooldown_s
                changes.append(Change("opened", detection))
                continue
            detection = replace(
                known, finding=finding, seen_at=now, peak=max(known.peak, finding.count)
            )
            if now >= self._tell_at[key]:
                longest = max(LONGEST_COOLDOWN_S, self._cooldown_s)
                doubled = self._cooldown_s * 2 ** min(known.told, 20)
                self._tell_at[key] = now + min(doubled, longest)
                detection = replace(detection, told=known.told + 1)
                changes.append(Change("told_again", detection))
            self._open[key] = detection
        return tuple(changes)

    def _told_before(self, finding: Finding) -> _Key | None:
        """Return the key of the oldest open detection that tells of the same leak."""
        return next(
            (
                each.refers_to or each.finding.key
                for each in self._open.values()
                if each.finding.kind == finding.kind
                and not _places(each.finding).isdisjoint(_places(finding))
            ),
            None,
        )


def _places(finding: Finding) -> set[str]:
    """Return the fingerprints that a finding is about: its own and its largest site's."""
    marks = {site.fingerprint for site in finding.sites[:1]}
    return marks | {finding.fingerprint} if finding.fingerprint is not None else marks


class Watch:
    """
    Looks at the process again and again, from a thread of its own.

    Args:
        config: The options.
        taker: Makes a CensusTaker, given the pause between its slices. A new one is
            made after a fork.
        listener: Hears of it.
        cpu_clock: Seconds of CPU of the calling thread.
        sleep: Sleeps some seconds between two slices of a census.
    """

    def __init__(
        self,
        config: LeakConfig,
        taker: Callable[[Callable[[], None]], CensusTaker],
        listener: Listener,
        *,
        cpu_clock: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._listener = listener
        self._cpu_clock = cpu_clock
        self._sleep = sleep
        self._stopping = threading.Event()
        # Whether stopping did not wait for what the thread was telling.
        self._given_up = False
        self._taker = taker(self._pause)
        self._ledger = Ledger(config.cooldown_s)
        self._pools: deque[tuple[Pool, ...]] = deque(maxlen=_backlog.LOOKS)
        self._growth = growth_of(config, self._pause)
        self._logged: set[object] = set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """
        Begin to watch; the first census is taken at once, by the new thread.

        Raises:
            RuntimeError: The interpreter can start no thread: it is shutting down.
        """
        self._report(self._taker.open())
        self._start_thread()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="otel-leaks-watch", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """End the thread and restore what the census patched. Safe to call again."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_S)
            if thread.is_alive():
                self._given_up = True
                _say(
                    logging.WARNING,
                    "the monitor thread did not end within %.0f s; it is a daemon and will "
                    "end when what it waits for does, a log handler or an exporter",
                    JOIN_S,
                )
        self._report(self._taker.close())

    def exiting(self) -> None:
        """End the thread as the interpreter ends: what holds a daemon is not waited for."""
        self._stopping.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(EXIT_JOIN_S)

    def forked(self) -> None:
        """Start anew in a forked child: new locks, empty history, a new thread."""
        self._stopping = threading.Event()
        self._ledger = Ledger(self._config.cooldown_s)
        self._pools.clear()
        self._growth = growth_of(self._config, self._pause)
        self._report(self._taker.forked())
        self._start_thread()

    def look(self) -> float:
        """
        Take one census and tell what it means.

        Returns:
            Seconds until the next one is due, so that looking takes at most 1 % of a core.

        Raises:
            CensusEnded: The watch is being stopped.
        """
        started = self._cpu_clock()
        try:
            self._look()
        except Exception as error:  # Whatever is wrong with us, the application goes on.
            self._log_once(type(error), "looking for leaks failed; it is tried again", error)
        cost_s = self._cpu_clock() - started
        return max(self._config.interval_s, cost_s / CPU_SHARE)

    def _look(self) -> None:
        growth, opened = self._growth, self._ledger.opened
        census = self._taker.take(sampled=growth.suspects() if growth is not None else frozenset())
        self._report(census.failures)
        if census.pools is not None:
            self._pools.append(census.pools)
        full = _backlog.backlogs(tuple(self._pools))
        found = findings(census, opened, self._config, growth)
        changes = self._ledger.update(census, [_backlog.explained(each, full) for each in found])
        for change in changes:
            self._tell(change)
        self._hear(lambda: self._listener.looked(census, self._ledger.opened))

    def _tell(self, change: Change) -> None:
        hear = {
            "opened": self._listener.opened,
            "told_again": self._listener.told_again,
            "resolved": self._listener.resolved,
        }[change.what]
        self._hear(lambda: hear(change.detection))

    def _hear(self, hear: Callable[[], None]) -> None:
        if self._given_up:
            raise CensusEnded
        try:
            hear()
        except Exception as error:  # An SDK or a log handler of the application's own.
            self._log_once(
                (type(error), "listener"),
                "telling of a census failed; the next one is told again",
                error,
            )

    def _run(self) -> None:
        stopping = self._stopping
        try:
            delay = self.look()
            while not stopping.wait(delay):
                delay = self.look()
        except CensusEnded:
            pass

    def _pause(self) -> None:
        if self._stopping.is_set():
            raise CensusEnded
        self._sleep(PAUSE_S)

    def _report(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            key = (failure.kind, failure.error_type)
            if key not in self._logged:
                self._logged.add(key)
                _say(
                    logging.ERROR,
                    "the census of %s failed (%s: %s) and is left out; the others go on. "
                    "Please report this with your Python version",
                    failure.kind,
                    failure.error_type,
                    masked_path(failure.detail),
                )

    def _log_once(self, key: object, message: str, error: BaseException) -> None:
        if key not in self._logged:
            self._logged.add(key)
            _say(logging.ERROR, "%s; this is told once", message, error=error)


def _say(level: int, message: str, *args: object, error: BaseException | None = None) -> None:
    # A handler of the application's own may raise. There is nobody left to tell.
    with contextlib.suppress(Exception):
        _log.log(level, message, *args, exc_info=error)
