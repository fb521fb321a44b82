from __future__ import annotations

import gc
import threading
import types
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from otel_leaks.runtime.glimpse import (
    attribute,
    drained,
    drained_until_error,
    first,
    in_c,
    is_alive,
    item,
    members,
    refs_to,
    root_of,
    root_of_ref,
    types_at,
)


class Thing:
    def __init__(self) -> None:
        self.held: Any = {"inner": "value"}


@pytest.fixture(params=[True, False], ids=["collecting", "not collecting"])
def collecting(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Give whether the application has the garbage collector on."""
    was_on = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if was_on else gc.disable)()


def test_the_garbage_collector_is_on_or_off_as_the_application_wants_it(collecting: bool) -> None:
    assert drained(lambda: iter((1, 2))) == [1, 2]
    assert gc.isenabled() is collecting
    with pytest.raises(TypeError):
        drained(lambda: map(len, (1,)))  # type: ignore[arg-type]
    assert gc.isenabled() is collecting
    assert drained_until_error(lambda: map(len, ("a", "ab", 1))) == [1, 2]  # type: ignore[arg-type]
    assert gc.isenabled() is collecting
    with pytest.raises(ZeroDivisionError):
        drained_until_error(lambda: (x // 0 for x in (1,)))
    assert gc.isenabled() is collecting


def test_an_error_while_the_iterator_is_made_leaves_the_collector_as_it_is(
    collecting: bool,
) -> None:
    def make() -> Iterator[Any]:
        raise ValueError("made nothing")

    with pytest.raises(ValueError, match="made nothing"):
        drained(make)
    assert gc.isenabled() is collecting


def test_no_collection_begins_inside_a_step() -> None:
    """From 3.12 on one begins between two bytecodes only."""
    begun: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        begun.append(phase)

    threshold = gc.get_threshold()
    gc.set_threshold(10)
    gc.callbacks.append(note)
    try:
        # Each of a thousand lists counts as one that may be garbage.
        begun.clear()
        made = drained(lambda: map(list, map(range, range(1000))))
        inside = list(begun)
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*threshold)
    assert len(made) == 1000
    # Without the guard a hundred; a few begin before and after the step.
    assert len(inside) < 20


def test_what_is_gone_leads_nowhere() -> None:
    thing = Thing()
    ref = weakref.ref(thing)
    way = (members, item("held"), item("inner"))
    assert first(root_of_ref(ref), way) == "value"
    assert is_alive([ref]) == [True]
    del thing
    assert first(root_of_ref(ref), way, "gone") == "gone"
    assert (types_at(root_of_ref(ref), ()), is_alive([ref])) == (None, [False])


def test_an_object_of_another_type_is_not_asked() -> None:
    class Asked:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"{name} was asked for")

    code = attribute(vars(types.CoroutineType)["cr_code"])
    assert first(root_of(Asked()), (code,), "not asked") == "not asked"


def test_only_a_class_made_in_c_has_attributes_in_c() -> None:
    class Mine:
        @property
        def cr_await(self) -> None:
            raise AssertionError("code of the application was called")

    assert in_c(Mine, "cr_await") is None
    assert in_c(types.CoroutineType, "cr_await") is not None


def test_a_reference_without_a_callback_is_the_same_each_time() -> None:
    thing = threading.Thread()
    (one,), (other,) = refs_to([thing]), refs_to([thing])
    assert one is other
