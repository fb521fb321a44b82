from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from otel_leaks.census import patches
from otel_leaks.census.patches import Patches

pytestmark = pytest.mark.unwatched


class Base:
    def inherited(self) -> list[str]:
        return ["base"]


class Owner(Base):
    def own(self) -> list[str]:
        return ["own"]


def saying(word: str) -> Callable[[Any], Any]:
    def make(original: Callable[..., list[str]]) -> Callable[..., list[str]]:
        return lambda *args: [word, *original(*args)]

    return make


def test_a_wrapper_is_put_there_and_the_very_object_comes_back() -> None:
    before = vars(Owner)["own"]
    made = Patches()
    made.wrap(Owner, "own", saying("a"))
    wrapped = Owner().own()
    made.restore()
    assert (wrapped, Owner().own()) == (["a", "own"], ["own"])
    assert vars(Owner)["own"] is before


def test_what_was_inherited_is_inherited_again() -> None:
    made = Patches()
    made.wrap(Owner, "inherited", saying("a"))
    wrapped = Owner().inherited()
    made.restore()
    assert wrapped == ["a", "base"]
    assert "inherited" not in vars(Owner)


@pytest.mark.parametrize("first", [0, 1])
def test_two_that_wrap_the_same_are_taken_back_in_any_order(first: int) -> None:
    before = vars(Owner)["own"]
    both = [Patches(), Patches()]
    for made, word in zip(both, "ab", strict=True):
        made.wrap(Owner, "own", saying(word))
    wrapped = Owner().own()
    both[first].restore()
    left = Owner().own()
    both[1 - first].restore()
    assert wrapped == ["b", "a", "own"]
    assert left == [["b", "own"], ["a", "own"]][first]
    assert vars(Owner)["own"] is before
    assert patches._points == []


def test_what_somebody_else_put_over_ours_stays() -> None:
    class Shared(Owner):
        def own(self) -> list[str]:
            return ["shared"]

    made = Patches()
    made.wrap(Shared, "own", saying("ours"))
    theirs = saying("theirs")(Shared.own)
    Shared.own = theirs  # type: ignore[method-assign]
    made.restore()
    assert vars(Shared)["own"] is theirs
    assert patches._points == []


def test_restoring_twice_is_restoring_once() -> None:
    made = Patches()
    made.wrap(Owner, "own", saying("a"))
    made.restore()
    made.restore()
    assert Owner().own() == ["own"]


def test_a_class_made_in_c_is_refused_and_nothing_is_kept() -> None:
    with pytest.raises(TypeError):
        Patches().wrap(int, "bit_length", saying("a"))
    assert patches._points == []
