"""
What a policy is: one evidence, in one file.

A file of this folder that is named like its evidence has a ``POLICY``. The monitor asks it, and
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
    """What a policy remembers of the censuses of one process."""

    def look(self, census: Census, opened: Collection[Finding] = ()) -> Iterable[Finding]:
        """
        Enter a census; report what it means.

        Args:
            census: Taken after all that were entered before.
            opened: The findings of this policy that are open.

        Returns:
            0..n findings. Of an open one that has ended there is one that says so.
        """

    def suspects(self) -> Collection[str]:
        """Return the fingerprints of sites that want a sample in the next census."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One evidence: what it can open, how it is found, and in which words it is reported."""

    evidence: Evidence
    kinds: tuple[Kind, ...]
    """The kinds that it can open for."""
    says: str
    """What it says, in some words, as it stands in the table of the docs."""
    opens_when: str
    """The same of when it opens."""
    options: tuple[str, ...]
    """The names of its options in ``LeakConfig``."""
    begin: Callable[[LeakConfig, Callable[[], None]], Memory | None]
    """Returns an empty memory, given the options and the pause between two slices of work; None
    where its options turn it off."""
    found: Callable[[Finding], str]
    """Says what was found, in one sentence without a full stop. A reminder says the same, as it
    stands then."""
    ended: Callable[[Detection], str]
    """Says why it ended and how many are left, in one sentence without a full stop."""
    is_of_operation: bool = False
    """Whether it is about the operation that its largest site began in."""

    @property
    def opens(self) -> tuple[tuple[Kind, Evidence], ...]:
        """The pairs of kind and evidence that it can open."""
        return tuple((kind, self.evidence) for kind in self.kinds)
