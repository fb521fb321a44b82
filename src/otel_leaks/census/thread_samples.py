"""The threads that represent a site, and their stacks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from otel_leaks.census.source import Look
from otel_leaks.census.spans import chosen
from otel_leaks.census.thread_names import ThreadNames
from otel_leaks.census.thread_places import Thread, ThreadPlace, ThreadSite
from otel_leaks.model import Sample, Site
from otel_leaks.runtime.bytecode.endless import Exits
from otel_leaks.runtime.bytecode.lock_owners import may_wait, waits_for_dead
from otel_leaks.runtime.frames import stacks_of
from otel_leaks.runtime.timeouts import wakes_itself

__all__ = ["ThreadSamples"]


class ThreadSamples:
    """
    Reads the samples of one census.

    Args:
        names: The names of functions on the threads' stacks.
        exits: Knows the endless loops of functions.
        look: The census in progress.
    """

    def __init__(self, names: ThreadNames, exits: Exits, look: Look) -> None:
        self._names = names
        self._exits = exits
        self._look = look

    def added(self, site: Site, found: ThreadSite) -> Site:
        """Return *site* with its oldest thread, its newest, and one that outlived its span."""
        sample = self._sample(found.first, found.first.first)
        newest = None
        if found.last.last.known.serial != sample.serial:
            newest = self._sample(found.last, found.last.last)
        left = None
        if found.left is not None and site.ended is not None:
            left = self._sample(*found.left)
        site = replace(site, sample=sample, newest=newest, outlived=left)
        creations = self._look.creations
        if creations is None:
            return site
        operations = map(creations.operation, found.notes)
        return replace(
            site,
            origin=site.origin or sample.origin,
            operations=chosen(each for each in operations if each is not None),
        )

    def _sample(self, place: ThreadPlace, thread: Thread) -> Sample:
        look = self._look
        look.show("thread", thread.known)
        # Its current offsets, if its stack is still the same.
        (now,) = stacks_of((thread.row.ident or 0,))
        is_there = [code for code, *_ in now] == place.shape.codes
        if is_there:
            place.stand = now
        own = place.stands()
        places = [(code, at) for code, at, _ in own]
        ask = partial(look.guard.ask, "thread")
        origin = place.origin
        if look.creations is not None and thread.creation is not None:
            origin = look.creations.origin(thread.creation)
        return Sample(
            serial=thread.known.serial,
            stack=self._names.stack(own),
            name=thread.row.name,
            age_s=thread.age_s(look),
            thread_id=thread.row.ident,
            endless=ask(lambda: self._exits.any_endless(places, look.pause), default=False),
            dead_owner=is_there
            and ask(lambda: _waits_for_dead(place, thread.row.ident), default=False),
            timed=bool(own)
            and ask(lambda: wakes_itself(place.functions[-1], *own[-1][:2]), default=False),
            origin=origin,
        )


def _waits_for_dead(place: ThreadPlace, ident: int | None) -> bool:
    # In threading itself the lock is a plain Lock, which has no owner.
    return (
        bool(place.stand)
        and ident is not None
        and not place.functions[-1].startswith("threading.")
        and may_wait(*place.stand[0][:2])
        and waits_for_dead(ident, *place.stand[0][:2])
    )
