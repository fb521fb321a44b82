"""The life of each finding: it opens, is repeated in reminders, resolves, and may reopen."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from otel_leaks.model import Census, Detection, End, Evidence, Finding, Kind

__all__ = ["Change", "Ledger"]

AT_ONCE: frozenset[End] = frozenset({"ended", "passing", "steady", "quiet"})
"""Ends that a policy is sure of. A count below its limit may soon rise again."""
MISSING_CENSUSES = 3
"""Consecutive censuses without a finding before it ends."""
MAX_ENDED = 256
"""Detections that are remembered after their end."""
LONGEST_COOLDOWN_S = 3600.0
"""The longest pause between two reminders, unless the first one is longer."""

_Key = tuple[Kind, Evidence, "str | None"]


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a detection in one census."""

    what: Literal["opened", "reminded", "resolved"]
    detection: Detection


class Ledger:
    """
    Keeps the detections from opening to end.

    A finding ends at once if its policy reports that its cause has ended. If it is only missing,
    or its policy reports a lower count, it ends after several censuses, and not before
    *cooldown_s*: a count that fluctuates around a limit is one detection. A finding that opens
    again within *cooldown_s* of its end is the same detection, and no longer ends at once.

    Args:
        cooldown_s: Seconds until the first reminder of an open detection; then twice that, up
            to an hour.
    """

    def __init__(self, cooldown_s: float) -> None:
        self._cooldown_s = cooldown_s
        self._open: dict[object, Detection] = {}
        self._remind_at: dict[object, float] = {}
        self._ending: dict[object, _Ending] = {}
        self._returned: set[object] = set()
        """Open ones that had ended before."""
        self._ended: dict[object, Detection] = {}
        """The ones that ended last, in the order in which they ended."""

    @property
    def opened(self) -> tuple[Detection, ...]:
        """The detections that are open, in the order in which they opened."""
        return tuple(self._open.values())

    def update(
        self, census: Census, found: Iterable[Finding], unasked: Collection[Evidence] = ()
    ) -> tuple[Change, ...]:
        """
        Add the findings of a census.

        Args:
            census: A detection of a kind that this census could not read stays as it is.
            found: All findings of this census.
            unasked: Evidences whose policy could not be called; their detections stay as well.

        Returns:
            The changes to report, ends first.
        """
        now = census.taken_at
        by_key = {each.key: each for each in found}
        unread = {failure.kind for failure in census.failures}
        changes = []
        for key, detection in list(self._open.items()):
            finding = detection.finding
            if key not in by_key and (finding.kind in unread or finding.evidence in unasked):
                continue
            said = by_key[key] if key in by_key else replace(finding, ended="absent")
            if said.ended is None:
                self._ending.pop(key, None)
            elif self._is_over(key, said.ended, now):
                since = self._ending.pop(key).since
                self._returned.discard(key)
                ended = replace(detection, finding=said, seen_at=since)
                del self._open[key]
                self._remember(key, ended, now)
                changes.append(Change("resolved", ended))
        for key, finding in by_key.items():
            if finding.ended is not None:
                continue
            known = self._open.get(key) or self._again(key, now)
            if known is None:
                detection = Detection(
                    finding,
                    opened_at=now,
                    seen_at=now,
                    peak=finding.count,
                    refers_to=self._reported_before(finding),
                )
                self._open[key] = detection
                self._remind_at[key] = now + self._cooldown_s
                changes.append(Change("opened", detection))
                continue
            detection = replace(
                known, finding=finding, seen_at=now, peak=max(known.peak, finding.count)
            )
            if now >= self._remind_at[key]:
                longest = max(LONGEST_COOLDOWN_S, self._cooldown_s)
                doubled = self._cooldown_s * 2 ** min(known.times_reported, 20)
                self._remind_at[key] = now + min(doubled, longest)
                detection = replace(detection, times_reported=known.times_reported + 1)
                changes.append(Change("reminded", detection))
            self._open[key] = detection
        return tuple(changes)

    def _is_over(self, key: object, why: End, now: float) -> bool:
        """Note that a detection may have ended; return whether it is over."""
        ending = self._ending.setdefault(key, _Ending(now))
        ending.censuses += 1
        return (why in AT_ONCE and key not in self._returned) or (
            ending.censuses >= MISSING_CENSUSES and now - ending.since >= self._cooldown_s
        )

    def _remember(self, key: object, ended: Detection, now: float) -> None:
        self._ended.pop(key, None)
        self._ended[key] = ended
        # If it reopens after its end was reported, a reminder reports that it continues.
        self._remind_at[key] = min(self._remind_at[key], now + self._cooldown_s)
        while len(self._ended) > MAX_ENDED:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._remind_at.pop(oldest, None)

    def _again(self, key: object, now: float) -> Detection | None:
        """Return the recently ended detection that opens again, None if there is none."""
        ended = self._ended.pop(key, None)
        if ended is None or now - ended.seen_at > self._cooldown_s:
            return None
        self._returned.add(key)
        return ended

    def _reported_before(self, finding: Finding) -> _Key | None:
        """Return the key of the oldest open detection that reports the same leak."""
        return next(
            (
                each.refers_to or each.finding.key
                for each in self._open.values()
                if each.finding.kind == finding.kind
                and not _places(each.finding).isdisjoint(_places(finding))
            ),
            None,
        )


@dataclass(slots=True)
class _Ending:
    """A detection that may have ended."""

    since: float
    censuses: int = 0


def _places(finding: Finding) -> set[str]:
    """Return what identifies a finding: its fingerprint, its largest site's, and its function."""
    marks = {site.fingerprint for site in finding.sites[:1]}
    marks |= {site.function for site in finding.sites[:1]}
    return marks | {finding.fingerprint} if finding.fingerprint is not None else marks
