"""Tasks that run a coroutine inside a wrapper, and what they are counted as: what is wrapped."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence

from otel_leaks.runtime.coroutines import Chain
from otel_leaks.runtime.task_chains import awaited_ids, function_of
from otel_leaks.runtime.tasks import TaskRef
from otel_leaks.runtime.wrappers import Wrapper, runner_of, wrapper_of

__all__ = ["Wrapped"]

Key = int | str

MAX_LEVELS = 3
"""Wrappers around each other that are looked through for all tasks of a slice at once."""


class Wrapped:
    """What one reading has learned of codes by their ids, which are keys as long as it lasts."""

    __slots__ = ("_codes", "_run", "_wrappers")

    def __init__(self) -> None:
        self._codes: dict[Key, types.CodeType | None] = {}
        self._wrappers: dict[Key, Wrapper | None] = {}
        """None for what has no code, and is looked through in its own way."""
        self._run: set[Key] = set()
        """The application's functions that runners await."""

    @property
    def codes(self) -> Mapping[Key, types.CodeType | None]:
        """The codes that were noted, by their ids."""
        return self._codes

    def learn(self, codes: Mapping[int, types.CodeType | None], step: Callable[[], None]) -> None:
        """
        Note the codes of outermost coroutines.

        Args:
            codes: By their ids.
            step: Called after each that is new.
        """
        for key, code in codes.items():
            if key not in self._codes:
                self.note(code)
                step()

    def has_any(self, keys: Iterable[Key]) -> bool:
        """Say whether there is a wrapper among the codes with these ids."""
        return bool(self._wrappers) and not self._wrappers.keys().isdisjoint(keys)

    def note(self, code: types.CodeType | None) -> Wrapper | None:
        """Note one code, and return what it wraps."""
        self._codes[id(code)] = code
        wrapper = wrapper_of(code)
        if code is None or wrapper is not None:
            self._wrappers[id(code)] = wrapper
        return wrapper

    def note_outer(self, chain: Chain) -> None:
        """Note the wrappers at the outer end of a chain."""
        for level in chain.levels:
            if self.note(level.code) is None:
                return

    def code(self, key: Key) -> types.CodeType | None:
        """Return a code by its id."""
        return self._codes.get(key)

    def look_through(self, refs: Sequence[TaskRef], keys: list[Key]) -> list[int]:
        """
        Put what is wrapped in the place of wrappers in *keys*, where that is known.

        Returns:
            Which of the keys are to be found one by one.
        """
        slow = [i for i, key in enumerate(keys) if key in self._wrappers]
        ahead = [i for i in slow if self._is_plain(keys[i])]
        slow = [i for i in slow if not self._is_plain(keys[i])]
        for level in range(1, MAX_LEVELS + 1):
            ids = awaited_ids([refs[i] for i in ahead], level)
            if not ids:
                break
            further = []
            for i, key in zip(ahead, ids, strict=True):
                if self._is_plain(key):
                    further.append(i)
                elif self.is_settled(key):
                    keys[i] = key
                else:
                    slow.append(i)
            ahead = further
        return [*slow, *ahead]

    def without_wrappers(self, plain: tuple[int, ...]) -> tuple[int, ...]:
        """Leave out the wrappers at the outer end; leave out all where more has to be read."""
        for number, key in enumerate(plain):
            if not self._is_plain(key):
                return plain[number:] if self.is_settled(key) else ()
        return ()

    def key(self, ref: TaskRef, plain: tuple[int, ...], run: tuple[int, ...]) -> tuple[int, ...]:
        """
        Return the key of the chain that a task stands in, as far as that is known.

        Args:
            ref: Of the task.
            plain: The ids of the codes of its coroutines.
            run: The same without wrappers.
        """
        code = self._codes.get(run[0])
        runner = runner_of(code)
        if code is None or runner is None:
            return run
        if len(run) > 1 and run[1] in self._run:
            return run[1:]
        function = function_of(ref, len(plain) - len(run), code, runner)
        return (id(function), *run) if function is not None else run

    def note_run(self, chain: Chain) -> None:
        """Note what a chain runs, and the function of the application's that a runner awaits."""
        outermost = chain.outermost
        if outermost is None:
            return
        self.note(outermost.code)
        first = chain.levels[0]
        if first.code is not outermost.code and first.instruction is None:
            self._codes.setdefault(id(first.code), first.code)
            self._run.add(id(first.code))

    def is_settled(self, key: Key) -> bool:
        """Say whether a code is known to be no wrapper."""
        return key in self._codes and key not in self._wrappers

    def _is_plain(self, key: Key) -> bool:
        """Say whether whatever a coroutine awaits is what it was given."""
        wrapper = self._wrappers.get(key)
        return wrapper is not None and not wrapper.enters
