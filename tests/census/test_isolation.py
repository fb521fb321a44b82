from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from otel_leaks.census.isolation import (
    FREE_TRIES,
    LONGEST_PAUSE,
    CensusEnded,
    Parts,
    SkippedError,
    text_of,
    type_name,
)


def refuse() -> None:
    raise OSError("no disk")


def tries(parts: Parts, count: int, act: Callable[[], None], *, backs_off: bool = True) -> str:
    """Run the part *count* times; return a letter for each: raised, skipped or done."""
    said = ""
    for _ in range(count):
        try:
            parts.run("a", act, backs_off=backs_off)
            said += "d"
        except SkippedError as skipped:
            said += "s" if (skipped.error_type, skipped.detail) == ("OSError", "no disk") else "?"
        except OSError:
            said += "r"
    return said


class Held:
    """A thread that is in the part *name* until it is let go."""

    def __init__(self, parts: Parts, *names: str) -> None:
        self.parts = parts
        self.names = names
        self.inside = threading.Event()
        self.go_on = threading.Event()
        self.ended_with: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.inside.wait(20)

    def _run(self) -> None:
        try:
            self._enter(*self.names)
        except BaseException as error:
            self.ended_with = error

    def _enter(self, *names: str) -> None:
        if names:
            self.parts.run(names[0], lambda: self._enter(*names[1:]))
        else:
            self.inside.set()
            assert self.go_on.wait(20)

    @property
    def ident(self) -> int:
        assert self.thread.ident is not None
        return self.thread.ident

    def end(self) -> None:
        self.go_on.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


def test_a_part_returns_what_it_does_and_raises_what_it_raises() -> None:
    parts = Parts()
    assert parts.run("a", lambda: 7) == 7
    with pytest.raises(asyncio.CancelledError):
        parts.run("a", lambda: (_ for _ in ()).throw(asyncio.CancelledError()))


def test_a_part_that_keeps_failing_is_tried_less_and_less_often_and_never_given_up() -> None:
    said = tries(Parts(), 400, refuse)
    assert said.startswith("r" * (FREE_TRIES + 1) + "s" + "r" + "sss" + "r" + "s" * 7 + "r")
    assert said.endswith("r" + "s" * LONGEST_PAUSE + "r" + said.rpartition("r")[2])


def test_a_part_that_works_again_is_run_each_time_again() -> None:
    parts = Parts()
    assert tries(parts, 5, refuse) == "rrrrs"
    assert tries(parts, 3, lambda: None) == "ddd"
    assert tries(parts, 5, refuse) == "rrrrs"


def test_a_part_that_does_not_back_off_is_tried_each_time() -> None:
    assert tries(Parts(), 20, refuse, backs_off=False) == "r" * 20


def test_a_part_that_a_thread_is_in_is_skipped_until_it_has_returned() -> None:
    parts = Parts()
    held = Held(parts, "a")
    with pytest.raises(SkippedError) as skipped:
        parts.run("a", lambda: 1)
    others = parts.run("b", lambda: 2)
    held.end()
    assert (skipped.value.error_type, others, parts.run("a", lambda: 3)) == ("timeout", 2, 3)


def test_a_thread_that_was_deposed_ends_when_it_returns() -> None:
    parts = Parts()
    held = Held(parts, "a")
    assert parts.depose(held.ident, parts.progress) == "a"
    held.end()
    assert isinstance(held.ended_with, CensusEnded)
    assert parts.run("a", lambda: 3) == 3


def test_of_parts_inside_each_other_the_innermost_is_what_hangs() -> None:
    parts = Parts()
    held = Held(parts, "outer", "inner")
    assert parts.depose(held.ident, parts.progress) == "inner"
    assert parts.run("outer", lambda: 1) == 1
    with pytest.raises(SkippedError):
        parts.run("inner", lambda: 2)
    held.end()
    assert parts.run("inner", lambda: 2) == 2


def test_a_thread_that_made_progress_meanwhile_is_not_deposed() -> None:
    parts = Parts()
    held = Held(parts, "a")
    before = parts.progress
    parts.step()
    assert parts.depose(held.ident, before) is None
    held.end()
    assert held.ended_with is None


def test_a_deposed_thread_ends_at_its_next_step_and_enters_nothing() -> None:
    parts = Parts()
    me = threading.get_ident()
    assert parts.depose(me, parts.progress) == ""
    with pytest.raises(CensusEnded):
        parts.step()
    with pytest.raises(CensusEnded):
        parts.run("a", lambda: 1)
    parts.ended()
    parts.step()
    assert parts.run("a", lambda: 1) == 1


def test_the_end_of_a_census_is_no_failure_of_a_part() -> None:
    parts = Parts()

    def end() -> None:
        raise CensusEnded

    for _ in range(10):
        with pytest.raises(CensusEnded):
            parts.run("a", end, backs_off=True)


def test_in_a_forked_child_no_thread_is_in_any_part() -> None:
    parts = Parts()
    held = Held(parts, "a")
    parts.depose(held.ident, parts.progress)
    parts.forked()
    assert parts.run("a", lambda: 1) == 1
    held.end()
    assert held.ended_with is None


def test_an_exception_whose_text_raises_has_none() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    class QuietError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert text_of(QuietError()) == ""
    assert text_of(MuteError()) == ""
    assert type_name(OSError()) == "OSError"
    assert type_name(asyncio.CancelledError()) == "asyncio.exceptions.CancelledError"
