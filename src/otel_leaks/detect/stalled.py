"""stalled: an event loop does not turn, because a call blocks it and everything on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policy import Policy
from otel_leaks.detect.words import duration
from otel_leaks.model import Census, Detection, Evidence, Finding, Kind, StallCause
from otel_leaks.model.loops import QUIET_S

__all__ = ["OPENS", "POLICY", "QUIET_S", "stalled"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (("event_loop", "stalled"),)
"""The pairs of kind and evidence that this policy can open."""

TENTHS_S = 10.0
"""Durations below this are shown with tenths of a second."""


def stalled(
    census: Census, *, open_marks: Collection[str] = (), max_sites: int
) -> tuple[Finding, ...]:
    """
    Report the sites at which event loops did not turn.

    A stall is proof, so one is enough for a finding.

    Args:
        census: One census, with the stalls of the last minutes.
        open_marks: Fingerprints of the sites with an open finding.
        max_sites: Maximum number of findings, >= 1.

    Returns:
        0..n findings, the longest stall first, and an ended one for each open finding without
        another stall for a minute.
    """
    stalls = census.loops.stalls if census.loops is not None else ()
    goes_on = [each for each in stalls if each.quiet_s < QUIET_S][:max_sites]
    over = [
        each for each in stalls if each.quiet_s >= QUIET_S and each.site.fingerprint in open_marks
    ]
    return tuple(
        Finding(
            kind="event_loop",
            evidence="stalled",
            count=stall.site.count,
            fingerprint=stall.site.fingerprint,
            age_s=stall.longest_s,
            sites=(stall.site,),
            site_count=1,
            ended="quiet" if stall.quiet_s >= QUIET_S else None,
            stall=stall,
        )
        for stall in (*goes_on, *over)
    )


class _Stalled:
    def __init__(self, config: LeakConfig, pause: Callable[[], None]) -> None:
        del pause
        self._max_sites = config.max_sites

    def look(self, census: Census, opened: Collection[Finding] = ()) -> tuple[Finding, ...]:
        return stalled(
            census,
            open_marks={each.fingerprint or "" for each in opened},
            max_sites=self._max_sites,
        )

    @staticmethod
    def suspects() -> tuple[str, ...]:
        return ()


def _begin(config: LeakConfig, pause: Callable[[], None]) -> _Stalled | None:
    if config.stalled_s is None or not config.measure_loops:
        return None
    return _Stalled(config, pause)


_DID: Mapping[StallCause | None, str] = {
    "computes": ", which computed",
    "waits": ", which waited and used no CPU",
}
_BLAME: Mapping[StallCause | None, str] = {
    "many": "it ran many callbacks, one after the other",
    "gc": "the garbage collector ran",
    "gil": "another thread kept the GIL",
    "no_cpu": "its thread got no CPU",
}


def _found(finding: Finding) -> str:
    """Describe for how long a loop did not turn, why, and what that delayed."""
    stall = finding.stall
    took = _seconds(finding.age_s)
    said = f"an event loop was blocked for {took}"
    if stall is not None and not stall.quiet_s:
        said = f"an event loop has been blocked for {took} so far"
    if finding.count > 1:
        said = f"event loops were blocked {finding.count} times, for up to {took}"
    at = stall.at if stall is not None else None
    blame = _BLAME.get(stall.cause) if stall is not None else None
    if blame is not None:
        said += f": {blame}"
        said += f", in {at.function} ({at.file}:{at.line})" if at is not None else ""
    elif at is not None and stall is not None:
        said += f" by {at.function} ({at.file}:{at.line}){_DID.get(stall.cause, '')}"
    if stall is not None and stall.task is not None:
        said += f", in task {stall.task}"
    operations = finding.sites[0].operations if finding.sites else ()
    named = next((each.name for each in operations if each.name), "")
    return f"{said}, in {named}" if named else said


def _ended(detection: Detection) -> str:
    finding = detection.finding
    at = finding.stall.at if finding.stall is not None else None
    place = f" in {at.function}" if at is not None else ""
    many = "was 1 stall" if finding.count == 1 else f"were {finding.count} stalls"
    return (
        f"event loops are no longer blocked{place}: there {many} of up to {_seconds(finding.age_s)}"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < TENTHS_S else duration(seconds)


POLICY = Policy(
    evidence="stalled",
    kinds=tuple(kind for kind, _ in OPENS),
    says="one call blocks everybody",
    opens_when="an event loop did not turn for a second (`stalled_s`) while others waited for it",
    options=("stalled_s", "measure_loops", "max_sites"),
    begin=_begin,
    found=_found,
    ended=_ended,
    is_of_operation=True,
)
