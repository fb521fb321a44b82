"""
What a policy is: one evidence, in one file.

A file in this folder that is named after its evidence defines a ``POLICY``. The monitor calls it;
telemetry, reports and the tables of the docs follow what it declares.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from otel_leaks.config import LeakConfig
from otel_leaks.model import Census, Detection, Evidence, Finding, Kind

__all__ = ["Memory", "Policy"]


class Memory(Protocol):
    """A policy's memory of the censuses of one process."""

    def look(self, census: Census, opened: Collection[Finding] = ()) -> Iterable[Finding]:
        """
        Add a census; report what it shows.

        Args:
            census: Taken after all that were added before.
            opened: The open findings of this policy.

        Returns:
            0..n findings. For an open one that has ended there is one that says so.
        """

    def suspects(self) -> Collection[str]:
        """Return the fingerprints of sites that want a sample in the next census."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One evidence: what it can open, how it is found, and how it is worded."""

    evidence: Evidence
    kinds: tuple[Kind, ...]
    """The kinds that it can open for."""
    says: str
    """A few words about what it means, for the table of the docs."""
    opens_when: str
    """A few words about when it opens, for the same table."""
    options: tuple[str, ...]
    """The names of its options in ``LeakConfig``."""
    begin: Callable[[LeakConfig, Callable[[], None]], Memory | None]
    """Returns an empty memory, given the options and the pause between two slices of work; None
    if its options turn it off."""
    found: Callable[[Finding], str]
    """Describes what was found, in one sentence without a full stop. A reminder uses the same text,
    with the current values."""
    ended: Callable[[Detection], str]
    """Describes why it ended and how many are left, in one sentence without a full stop."""
    is_counted: bool = True
    """Whether its objects are among those that a census counts; finished tasks are not."""
    is_of_operation: bool = False
    """Whether it concerns the operation in which its largest site was created."""

    @property
    def opens(self) -> tuple[tuple[Kind, Evidence], ...]:
        """The pairs of kind and evidence that it can open."""
        return tuple((kind, self.evidence) for kind in self.kinds)
