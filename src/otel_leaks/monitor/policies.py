"""Calls every policy with each census."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policies import POLICIES
from otel_leaks.detect.policy import Memory
from otel_leaks.model import Census, Detection, Evidence, Finding

__all__ = ["Attempt", "Policies"]

Attempt = Callable[[Evidence, Callable[[], tuple[Finding, ...]]], tuple[Finding, ...]]
"""Calls one policy, identified by its evidence; returns no findings if that fails."""


class Policies:
    """
    All policies, with their memories of the censuses of one process.

    Args:
        config: Their options.
        pause: Called between slices of work.
    """

    def __init__(self, config: LeakConfig, pause: Callable[[], None] = lambda: None) -> None:
        begun = {policy.evidence: policy.begin(config, pause) for policy in POLICIES}
        self._memories = {
            evidence: memory for evidence, memory in begun.items() if memory is not None
        }

    def suspects(self) -> frozenset[str]:
        """Return the fingerprints of sites that want a sample in the next census."""
        return frozenset().union(*(each.suspects() for each in self._memories.values()))

    def look(
        self,
        census: Census,
        opened: Iterable[Detection] = (),
        attempt: Attempt = lambda _, ask: ask(),
    ) -> tuple[Finding, ...]:
        """
        Add a census; return all findings.

        Args:
            census: Taken after all that were added before.
            opened: The detections that were open before it.
            attempt: Calls each policy.
        """
        known: dict[Evidence, list[Finding]] = {evidence: [] for evidence in self._memories}
        for each in opened:
            known.setdefault(each.finding.evidence, []).append(each.finding)
        found: list[Finding] = []
        for evidence, memory in self._memories.items():
            found += attempt(evidence, partial(_ask, memory, census, known[evidence]))
        return tuple(found)


def _ask(memory: Memory, census: Census, opened: list[Finding]) -> tuple[Finding, ...]:
    return tuple(memory.look(census, opened))
