"""The conclusions from censuses: findings, and detections, which are findings that opened."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_leaks.model.census import Pool, Site
from otel_leaks.model.history import History
from otel_leaks.model.loops import Stall
from otel_leaks.model.words import End, Evidence, Kind

__all__ = ["Detection", "Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """An opinion on one kind or on one site, with its evidence."""

    kind: Kind
    evidence: Evidence
    count: int
    limit: int | None = None
    """The limit that *count* was compared with."""
    fingerprint: str | None = None
    """Of the site, for a finding on one site; None for one on a whole kind."""
    age_s: float = 0.0
    """Lower bound of the age of the oldest object, seconds."""
    sites: tuple[Site, ...] = ()
    """The sites that explain it, largest first."""
    site_count: int = 0
    """How many sites there are, including those not listed."""
    grown: int | None = None
    """How much *count* is above its value when it started to rise."""
    grown_s: float = 0.0
    """Seconds since then."""
    one_of: int | None = None
    """How many requests there are for each one that left something behind, if that is known."""
    group: str | None = None
    """The function it concerns, if objects may move from site to site."""
    ended: End | None = None
    """Why an open finding ends with this census, *count* being how many are left; None while
    it continues."""
    pool: Pool | None = None
    """The thread pool that it concerns."""
    pools: int | None = None
    """How many thread pools of one name the threads work for, if more and more such pools are
    created; *grown* then counts pools."""
    stall: Stall | None = None
    """The stalls of event loops that it concerns."""

    @property
    def key(self) -> tuple[Kind, Evidence, str | None]:
        """Identifies the same finding in successive censuses."""
        return (self.kind, self.evidence, self.group or self.fingerprint)


@dataclass(frozen=True, slots=True)
class Detection:
    """A finding that opened, in its current state."""

    finding: Finding
    opened_at: float
    """Seconds of the censuses' clock."""
    seen_at: float
    """Seconds of the censuses' clock: the last census that had the finding, or the one
    that ended it."""
    peak: int
    """The largest count since it opened."""
    times_reported: int = 1
    """How often it has been reported."""
    refers_to: tuple[Kind, Evidence, str | None] | None = None
    """Key of the finding that had already reported the same leak, and was open when this opened."""

    history: History | None = field(default=None, compare=False)
    """The minutes before it is reported, if they are recorded."""

    @property
    def open_s(self) -> float:
        """Seconds from opening to now, or to its end."""
        return self.seen_at - self.opened_at
