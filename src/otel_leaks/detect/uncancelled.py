"""
uncancelled: tasks whose cancellation was requested, and that do not end.

A count of requests alone proves little: code that cancels a task to interrupt one ``await``, and
does not withdraw the request, leaves a count on a healthy task. So a task counts only if it also
shows why it continues: a function on its stack catches ``CancelledError``, or it is handling one
now. docs/detection.md has the rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policy import Policy
from otel_leaks.detect.words import NOUNS, duration, last_confirmed, left, peak, where
from otel_leaks.model import Census, Detection, Evidence, Finding, Kind, Refusal, Sample, Site

__all__ = ["OPENS", "POLICY", "Uncancelled"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (("asyncio_task", "uncancelled"),)
"""The pairs of kind and evidence that this policy can open."""

PATIENCE = 10.0
"""Multiple of the limit that a task gets if it is likely to end by itself."""
RISES = 3
"""Consecutive censuses that find more requests: something asks again and again."""
MISSING = 2
"""Consecutive censuses that find no task of a finding before it ends."""
BUSY = 100.0
"""Requests per second: only a spinning loop asks that often."""


class Uncancelled:
    """
    Reports functions with tasks whose cancellation was requested and that do not end.

    Args:
        limit_s: Seconds since the first census that saw the request, > 0.
        max_sites: Maximum number of new findings, and of sites of one, >= 1.
    """

    def __init__(self, *, limit_s: float, max_sites: int) -> None:
        self._limit_s = limit_s
        self._max_sites = max_sites
        self._missing: Counter[str | None] = Counter()
        """For each open finding, consecutive censuses that found none of its tasks."""

    def look(self, census: Census, opened: Collection[Finding] = ()) -> tuple[Finding, ...]:
        """
        Add a census; report tasks whose cancellation was requested and that do not end.

        Args:
            census: Taken after all that were added before.
            opened: The open findings of this policy.

        Returns:
            0..n findings, one for each function, largest first. Each open one is included; one
            without any task left says so.
        """
        population = census.of("asyncio_task")
        if population is None:
            return tuple(opened)
        known = {finding.group: finding for finding in opened}
        self._missing = Counter({key: self._missing[key] for key in known})
        refusing = self._refusing(population.sites, known)
        found = [self._finding(function, some) for function, some in refusing.items()]
        found.sort(key=lambda each: (-each.count, each.fingerprint or ""))
        held = [each for each in found if each.group in known]
        for function, finding in known.items():
            if function in refusing:
                self._missing[function] = 0
                continue
            # While a task runs, its place is not known.
            self._missing[function] += 1
            is_over = self._missing[function] >= MISSING
            held.append(replace(finding, count=0, ended="ended") if is_over else finding)
        new = [each for each in found if each.group not in known]
        return (*held, *new[: self._max_sites])

    @staticmethod
    def suspects() -> tuple[str, ...]:
        """Return nothing: a census samples refusing tasks anyway."""
        return ()

    def _refusing(
        self, sites: Sequence[Site], known: Collection[str | None]
    ) -> dict[str, list[tuple[Site, list[Refusal]]]]:
        """Return the tasks that refuse to end, by function, with their sites."""
        refusing: dict[str, list[tuple[Site, list[Refusal]]]] = {}
        own: set[str] = set()
        for site in sites:
            refusals = [each for each in site.refusals if _refuses(each, self._limit_s)]
            if refusals:
                refusing.setdefault(site.function, []).append((site, refusals))
                if any(each.is_own or each.cleans_up for each in refusals):
                    own.add(site.function)
        # A library's task group catches it as well, and waits for its tasks that refuse.
        return {
            function: some
            for function, some in refusing.items()
            if not own or function in own or function in known
        }

    def _finding(self, function: str, refusing: Sequence[tuple[Site, list[Refusal]]]) -> Finding:
        ordered = sorted(refusing, key=lambda each: (-len(each[1]), each[0].fingerprint))
        refusals = [each for _, some in ordered for each in some]
        return Finding(
            kind="asyncio_task",
            evidence="uncancelled",
            count=len(refusals),
            fingerprint=ordered[0][0].fingerprint,
            age_s=max(each.since_s for each in refusals),
            sites=tuple(_shown(site, some) for site, some in ordered[: self._max_sites]),
            site_count=len(ordered),
            group=function,
        )


def _refuses(task: Refusal, limit_s: float) -> bool:
    is_busy = task.rate >= BUSY and task.rises >= RISES
    if not (task.catches or task.cleans_up or is_busy):
        return False
    if task.ends_later:
        return task.since_s >= PATIENCE * limit_s
    return task.since_s >= limit_s or task.rises >= RISES


def _shown(site: Site, refusals: list[Refusal]) -> Site:
    """Return *site* reduced to its tasks that refuse to end."""
    sample = site.refusing or site.sample
    return replace(site, count=len(refusals), sample=sample, refusals=tuple(refusals))


def _begin(config: LeakConfig, pause: Callable[[], None]) -> Uncancelled:
    del pause
    return Uncancelled(limit_s=config.uncancelled_s, max_sites=config.max_sites)


def _found(finding: Finding) -> str:
    """Describe which tasks were asked to end, how often, and where that is caught."""
    site = finding.sites[0]
    one, many, _ = NOUNS[finding.kind]
    noun = one if finding.count == 1 else many
    said = (
        f"{finding.count} {noun} {site.function}{where(site)} "
        f"{'goes' if finding.count == 1 else 'go'} on for at least {duration(finding.age_s)} after "
        f"{'its' if finding.count == 1 else 'their'} cancellation was requested"
    )
    requests = max((each.cancels for each in site.refusals), default=0)
    if requests > 1:
        said += f" ({requests} times)"
    return said + _why(site.sample)


def _why(sample: Sample | None) -> str:
    if sample is None:
        return ""
    if sample.cleans_up:
        return "; the cleanup does not end"
    if sample.caught_at is None:
        return ""
    frame = sample.caught_at
    return f"; {frame.function} ({frame.file}:{frame.line}) catches CancelledError"


def _ended(detection: Detection) -> str:
    finding, took = detection.finding, duration(detection.open_s)
    function = finding.sites[0].function if finding.sites else ""
    at = f" in {function}" if function else ""
    if finding.ended == "absent":
        return f"{last_confirmed(detection, at)}; {peak(detection)}"
    noun = NOUNS[finding.kind][1]
    return (
        f"the {noun}{at} whose cancellation was requested have ended after {took}: "
        f"{left(finding.count)}; {peak(detection)}"
    )


POLICY = Policy(
    evidence="uncancelled",
    kinds=tuple(kind for kind, _ in OPENS),
    says="asked to end, and does not",
    opens_when=(
        "tasks stay pending long after their cancellation was requested, or it is requested again "
        "and again"
    ),
    options=("uncancelled_s", "max_sites"),
    begin=_begin,
    found=_found,
    ended=_ended,
)
