"""What holds an object, as the garbage collector shows it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_leaks.runtime.heap import held_by_ended_calls


class Thing:
    pass


Kept = tuple["weakref.ref[Thing]", Any]
"""A thing that a function made, and what keeps it."""


def by_traceback() -> Kept:
    thing = Thing()
    try:
        raise ValueError
    except ValueError as error:
        return weakref.ref(thing), error


def by_nothing() -> Kept:
    return weakref.ref(Thing()), None


def by_attribute() -> Kept:
    ref, error = by_traceback()
    error.thing = ref()
    return ref, error


def by_closure() -> Kept:
    thing = Thing()
    return weakref.ref(thing), lambda: thing


def by_generator() -> Kept:
    def generator() -> Iterator[Any]:
        thing = Thing()
        yield weakref.ref(thing)

    running = generator()
    return next(running), running


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (by_traceback, True),
        (by_nothing, False),
        (by_attribute, False),
        (by_closure, False),
        (by_generator, False),
    ],
)
def test_only_variables_of_calls_that_are_over_refer_to_it(
    make: Callable[[], Kept], expected: bool
) -> None:
    ref, kept = make()
    assert held_by_ended_calls(ref) is expected
    del kept


def test_a_variable_of_a_call_that_goes_on_is_none_of_one_that_is_over() -> None:
    thing = Thing()
    frame = sys._getframe()
    assert held_by_ended_calls(weakref.ref(thing)) is False
    ref, kept = by_traceback()
    another = ref()
    assert held_by_ended_calls(ref) is False
    del frame, thing, another, kept
