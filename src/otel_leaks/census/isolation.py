"""
Isolates the parts of the monitor: one that raises or hangs does not affect the others.

A part is anything that may run code outside this package: a source of the census, a policy, the
log handlers, the span processors. Python has no way to interrupt a thread that waits in
such code. So the thread is given up: it is *deposed*, another thread continues without the part
that it is in, and the deposed thread stops as soon as it returns. A part holds at most one
thread, so there are never more deposed threads than parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from otel_leaks.runtime import forks, native

__all__ = [
    "FREE_TRIES",
    "LONGEST_PAUSE",
    "TIMEOUT",
    "CensusEnded",
    "Parts",
    "SkippedError",
    "text_of",
    "type_name",
]

FREE_TRIES = 3
"""Consecutive failures after which a part that backs off is still tried at once."""
LONGEST_PAUSE = 32
"""Maximum number of tries that are skipped before a part that keeps failing is tried again."""
TIMEOUT = "timeout"
"""``error.type`` for a part that does not return."""

_T = TypeVar("_T")


class CensusEnded(BaseException):
    """
    Raised by *pause* to end a census half-way.

    Not an Exception, so that it is not mistaken for a failing source.
    """


class SkippedError(Exception):
    """A part was not run: a thread is still in it, or it keeps failing and is paused."""

    def __init__(self, error_type: str, detail: str) -> None:
        super().__init__(detail)
        self.error_type = error_type
        self.detail = detail


class _Part:
    """The state of one part. Holds text only, no exception with its frames."""

    __slots__ = ("detail", "error_type", "failures", "holder", "pause")

    def __init__(self) -> None:
        self.holder: int | None = None
        self.failures = 0
        self.pause = 0
        self.error_type = ""
        self.detail = ""


class Parts:
    """
    The parts of one monitor, by name.

    ``progress`` rises whenever a part starts or ends and at each pause of a census; a
    monitor whose work does not raise it hangs.
    """

    def __init__(self) -> None:
        self.progress = 0
        self._parts: dict[str, _Part] = {}
        # Names of the parts that each thread is in, innermost last.
        self._inside: dict[int, list[str]] = {}
        self._deposed: set[int] = set()
        self._lock = forks.Lock()

    def forked(self) -> None:
        """Start over in a forked child, where no other thread is in any part."""
        self._parts = {}
        self._inside = {}
        self._deposed = set()

    def run(self, name: str, act: Callable[[], _T], *, backs_off: bool = False) -> _T:
        """
        Run *act* as the part *name*.

        Args:
            name: Of the part.
            act: The part's work; may raise anything.
            backs_off: Whether a part that failed more than three times in a row is skipped
                for an increasing number of tries, at most 32, before it is tried again.

        Raises:
            SkippedError: It was not run.
            CensusEnded: This thread has been deposed.
            BaseException: What *act* raised.
        """
        me = native.get_ident()
        part = self._enter(me, name)
        try:
            value = act()
        except CensusEnded:
            raise
        except BaseException as error:
            if backs_off:
                part.failures += 1
                part.pause = min(2 ** max(0, part.failures - FREE_TRIES) - 1, LONGEST_PAUSE)
                part.error_type, part.detail = type_name(error), text_of(error)
            raise
        else:
            part.failures = 0
            return value
        finally:
            self._leave(me, name, part)

    def attempt(self, name: str, act: Callable[[], object]) -> BaseException | bool:
        """
        Run *act* as the part *name*.

        Returns:
            True; False if it was not run because a thread is still in that part; or the
            exception that it raised.

        Raises:
            CensusEnded: This thread has been deposed.
        """
        try:
            self.run(name, act)
        except CensusEnded:
            raise
        except SkippedError:
            return False
        except BaseException as error:
            return error
        return True

    def step(self) -> None:
        """
        Record that the calling thread makes progress.

        Raises:
            CensusEnded: It was deposed.
        """
        self.progress += 1
        if self._deposed and native.get_ident() in self._deposed:
            raise CensusEnded

    def depose(self, ident: int, progress: int) -> str | None:
        """
        Give up a thread that hangs.

        Args:
            ident: Of the thread.
            progress: The value of ``progress`` during the whole time that it hung.

        Returns:
            The part that it hangs in, empty for none; None if it no longer hangs.
        """
        with self._lock:
            if self.progress != progress:
                return None
            self._deposed.add(ident)
            inside = self._inside.get(ident, [])
            # The parts around the innermost one do not hang.
            for name in inside[:-1]:
                self._parts[name].holder = None
            return inside[-1] if inside else ""

    def ended(self) -> None:
        """Forget the calling thread, which is ending: another one may get its ident."""
        me = native.get_ident()
        self._deposed.discard(me)
        self._inside.pop(me, None)

    def _enter(self, me: int, name: str) -> _Part:
        with self._lock:
            self.progress += 1
            if me in self._deposed:
                raise CensusEnded
            part = self._parts.setdefault(name, _Part())
            if part.holder is not None and part.holder != me:
                raise SkippedError(TIMEOUT, "it has not returned since")
            if part.pause:
                part.pause -= 1
                raise SkippedError(part.error_type, part.detail)
            part.holder = me
            self._inside.setdefault(me, []).append(name)
            return part

    def _leave(self, me: int, name: str, part: _Part) -> None:
        with self._lock:
            self.progress += 1
            inside = self._inside.get(me)
            if inside and inside[-1] == name:
                inside.pop()
                if not inside:
                    del self._inside[me]
            if part.holder == me and not (inside and name in inside):
                part.holder = None
            if me in self._deposed:
                raise CensusEnded


def type_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class, without the module for built-ins."""
    raised = type(error)
    try:
        if raised.__module__ == "builtins":
            return raised.__qualname__
        return f"{raised.__module__}.{raised.__qualname__}"
    except Exception:  # The metaclass of an unknown class may do anything.
        return "Exception"


def text_of(error: BaseException) -> str:
    """Return the text of an exception, empty if getting it raises."""
    try:
        return str(error)
    except BaseException:  # An unknown exception may have any __str__.
        return ""
