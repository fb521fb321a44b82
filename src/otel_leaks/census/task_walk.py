"""Follows the chains of coroutines in which tasks wait."""

from __future__ import annotations

import types
from collections.abc import Sequence
from functools import partial

from otel_leaks.census.pace import Pace
from otel_leaks.census.source import Look
from otel_leaks.census.task_tallies import Chained, Group, Key, Tally
from otel_leaks.model import OTHER, Kind
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.coroutines import Chain, is_plain_end
from otel_leaks.runtime.task_chains import PlainChain, chain_of, plain_chain_of
from otel_leaks.runtime.tasks import TaskRef

__all__ = ["Walk"]

LEVELS_OF_SLICE = 400
"""Levels of await chains that are followed between two pauses: about 0.2 milliseconds."""


class Walk:
    """
    Follows chains, and pauses after many levels.

    Args:
        kind: The kind that is read.
        names: The names of the codes in the chains.
        look: The census in progress.
    """

    def __init__(self, kind: Kind, names: CodeNames, look: Look) -> None:
        self._kind = kind
        self.names = names
        self._look = look
        self._pace = Pace(look.pause)
        self._levels = 0
        """Levels followed since the last pause."""

    def found(
        self, ref: TaskRef, plain_chain: PlainChain | None, tally: Tally, key: Key | None
    ) -> Chained | None:
        """
        Return the chain in which a task waits.

        Args:
            ref: Of the task.
            plain_chain: Its chain, if that was read already.
            tally: Where the chain is kept.
            key: The key that the task was counted as; None if it was not counted.

        Returns:
            None if it no longer waits in a chain, or was counted as something else.
        """
        plain, ending = plain_chain_of(ref) if plain_chain is None else plain_chain
        self.followed(len(plain))
        run = tally.wrapped.without_wrappers(plain)
        group = tally.groups.get(run[0]) if run else None
        if group is not None and key in {None, run[0]} and is_plain_end(ending):
            found = group.chains.get(tally.wrapped.key(ref, plain, run))
            if found is not None:
                return found
        chain = self._unwrapped(ref, tally)
        outermost = chain.outermost
        if outermost is None or (key is not None and outermost.key != key):
            return None
        return self._chained(chain, tally)

    def followed(self, levels: int) -> None:
        """Pause if enough levels were followed."""
        self._levels += levels
        if self._levels >= LEVELS_OF_SLICE:
            self._levels = 0
            self._look.pause()

    def look_through(
        self,
        refs: Sequence[TaskRef],
        keys: list[Key],
        codes: dict[int, types.CodeType | None],
        tally: Tally,
    ) -> None:
        """Replace wrappers in *keys* by what they run, and missing code by a name."""
        tally.wrapped.learn(codes, self._pace.step)
        if not tally.wrapped.has_any(keys):
            return
        for i in tally.wrapped.look_through(refs, keys):
            unwrapped = partial(self._unwrapped_key, refs[i], tally)
            keys[i] = self._look.guard.ask(self._kind, unwrapped, keys[i])

    def _unwrapped_key(self, ref: TaskRef, tally: Tally) -> Key:
        chain = self._unwrapped(ref, tally)
        return chain.outermost.key if chain.outermost is not None else OTHER

    def _unwrapped(self, ref: TaskRef, tally: Tally) -> Chain:
        chain = chain_of(ref)
        self.followed(len(chain.levels))
        tally.wrapped.note_outer(chain)
        chain = chain.unwrapped()
        tally.wrapped.note_run(chain)
        return chain

    def _chained(self, chain: Chain, tally: Tally) -> Chained:
        outermost = chain.outermost or chain.levels[0]
        group = tally.groups.get(outermost.key)
        if group is None:
            group = tally.groups[outermost.key] = Group(outermost.code)
        found = group.chains.get(chain.key())
        if found is None:
            functions = tuple(name.function for name in chain.names(self.names))
            found = group.chains[chain.key()] = Chained(
                [level.code for level in chain.levels], functions
            )
            self._pace.step()
        return found
