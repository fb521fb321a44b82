"""
One sentence on what to do about a thread, task or other object at a known place.

Each file here recognizes one reason why objects stay; a new one is a new file and a line in
``HINTS``.
"""

from __future__ import annotations

from typing import Protocol

from otel_leaks.model import Site
from otel_leaks.report.clusters import Cluster
from otel_leaks.report.hints import backlog, blocked, kinds, known, owners, states, waits

__all__ = ["HINTS", "Hint", "hint", "hint_of_all"]


class Hint(Protocol):
    """Recognizes one reason why objects stay."""

    def __call__(self, site: Site, own: Site, /) -> str | None:
        """
        Return a sentence on what to do about the objects of a site.

        Args:
            site: As it is shown.
            own: The same site with full paths, which distinguish own code from libraries.

        Returns:
            None if it does not apply, and the next one is tried; empty if nothing is wrong.
        """


HINTS: tuple[Hint, ...] = (
    known.hint,
    backlog.hint,
    states.of_dead_owner,
    states.of_cancelled,
    states.of_idle,
    owners.of_library,
    owners.of_python,
    blocked.hint,
    kinds.hint,
    waits.hint,
)
"""In the order in which they are tried: the first that applies wins."""


def hint(site: Site, own: Site | None = None) -> str | None:
    """
    Return a sentence on what to do about the objects of a site.

    Args:
        site: As it is shown.
        own: The same site with full paths, which distinguish own code from libraries; None
            if *site* has them.

    Returns:
        None if no hint applies, and if nothing is wrong: for workers without a job, and for
        objects that a timer will wake.
    """
    for ask in HINTS:
        said = ask(site, own or site)
        if said is not None:
            return said or None
    return None


def hint_of_all(leak: Cluster) -> str | None:
    """Return a sentence on what to do about a leak of several sites: end what owns them."""
    hints = [said for site in leak.sites if (said := hint(site)) is not None]
    reported = [said for said in hints if said.startswith("known: ")]
    owned = [said for said in hints if said.startswith(f"it belongs to {leak.owner}:")]
    return next(iter(reported or owned or hints), None)
