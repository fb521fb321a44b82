"""Tasks whose coroutine runs inside a wrapper, which are counted as the wrapped coroutine."""

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
"""Nested wrappers that are looked through for all tasks of a slice at once."""


class Wrapped:
    """Code objects that one reading has seen, by their ids, which are keys while it lasts."""

    __slots__ = ("_codes", "_run", "_wrappers")

    def __init__(self) -> None:
        self._codes: dict[Key, types.CodeType | None] = {}
        self._wrappers: dict[Key, Wrapper | None] = {}
        """None for objects without code, which are looked through in their own way."""
        self._run: set[Key] = set()
        """Ids of the application's functions that runners await."""

    @property
    def codes(self) -> Mapping[Key, types.CodeType | None]:
        """The codes that were noted, by their ids."""
        return self._codes

    def learn(self, codes: Mapping[int, types.CodeType | None], step: Callable[[], None]) -> None:
        """
        Note the codes of outermost coroutines.

        Args:
            codes: By their ids.
            step: Called after each new one.
        """
        for key, code in codes.items():
            if key not in self._codes:
                self.note(code)
                step()

    def has_any(self, keys: Iterable[Key]) -> bool:
        """Return whether there is a wrapper among the codes with these ids."""
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
        Replace wrappers in *keys* by what they wrap, where that is known.

        Returns:
            The indexes of keys that have to be looked up one by one.
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
        """Leave out the wrappers at the outer end; return nothing if more has to be read."""
        for number, key in enumerate(plain):
            if not self._is_plain(key):
                return plain[number:] if self.is_settled(key) else ()
        return ()

    def key(self, ref: TaskRef, plain: tuple[int, ...], run: tuple[int, ...]) -> tuple[int, ...]:
        """
        Return the key of the chain in which a task waits, as far as it is known.

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
        """Note what a chain runs, and the application's function that a runner awaits."""
        outermost = chain.outermost
        if outermost is None:
            return
        self.note(outermost.code)
        first = chain.levels[0]
        if first.code is not outermost.code and first.instruction is None:
            self._codes.setdefault(id(first.code), first.code)
            self._run.add(id(first.code))

    def is_settled(self, key: Key) -> bool:
        """Return whether a code is known not to be a wrapper."""
        return key in self._codes and key not in self._wrappers

    def _is_plain(self, key: Key) -> bool:
        """Return whether a wrapper awaits only the coroutine that it was given."""
        wrapper = self._wrappers.get(key)
        return wrapper is not None and not wrapper.enters
