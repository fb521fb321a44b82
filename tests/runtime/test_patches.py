from __future__ import annotations

import functools
import gc
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import wrapt
from opentelemetry.instrumentation.utils import unwrap

from otel_leaks.runtime import patches
from otel_leaks.runtime.patches import Patches

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


# Beside others that wrap the same


class Target:
    def own(self) -> list[str]:
        return ["own"]


ORIGINAL = Target.own


class Notes:
    """Ours: notes while it is on, as the package does."""

    def __init__(self, word: str = "ours") -> None:
        self.word = word
        self.is_on = False
        self.made = Patches()
        self.heard: list[str] = []

    def on(self) -> None:
        self.is_on = True
        self.made.wrap(Target, "own", self._make)

    def off(self) -> None:
        self.is_on = False
        self.made.restore()

    def _make(self, original: Callable[..., list[str]]) -> Callable[..., list[str]]:
        @functools.wraps(original)
        def own(*args: Any) -> list[str]:
            layers.append("ours")
            if self.is_on:
                self.heard.append(self.word)
            return original(*args)

        return own


layers: list[str] = []
"""The wrappers that the last call came through."""


class Theirs:
    """Another instrumentation, whose wrapper is made by wrapt as those of OpenTelemetry's are."""

    def on(self) -> None:
        wrapt.wrap_function_wrapper(Target, "own", self._wrapper)

    def off(self) -> None:
        unwrap(Target, "own")

    @staticmethod
    def _wrapper(wrapped: Any, _: object, args: Any, kwargs: Any) -> Any:
        layers.append("theirs")
        return wrapped(*args, **kwargs)


class Plain(Theirs):
    """One that puts a function there, and what it found back."""

    def on(self) -> None:
        found = self.found = Target.own

        def own(*args: Any) -> list[str]:
            layers.append("theirs")
            return found(*args)

        Target.own = own  # type: ignore[method-assign, assignment]

    def off(self) -> None:
        Target.own = self.found  # type: ignore[method-assign]


class OfGlobals(Plain):
    """One that keeps what it found in its module."""

    def on(self) -> None:
        global _found
        self.found = _found = Target.own
        Target.own = _own  # type: ignore[method-assign, assignment]


_found: Any = None


def _own(*args: Any) -> list[str]:
    layers.append("theirs")
    found: list[str] = _found(*args)
    return found


class OfObjects(Plain):
    """One whose wrapper is an object."""

    def on(self) -> None:
        self.found = found = Target.own

        class Wrapper:
            def __init__(self) -> None:
                self.inner = found

            def __get__(self, instance: object, _: object = None) -> Any:
                return functools.partial(self, instance) if instance is not None else self

            def __call__(self, *args: Any) -> list[str]:
                layers.append("theirs")
                return self.inner(*args)

        Target.own = Wrapper()  # type: ignore[method-assign, assignment]


def called() -> list[str]:
    """Call it; return the wrappers that the call came through."""
    layers.clear()
    assert Target().own() == ["own"]
    return list(layers)


@pytest.fixture
def target() -> Iterator[None]:
    """In the end nobody wraps it any more."""
    patches._deposed.clear()  # What tests before this one left below wrappers of others.
    yield
    Target.own = ORIGINAL  # type: ignore[method-assign]
    patches._deposed.clear()
    assert patches._points == []


OTHERS = [Theirs, Plain, OfGlobals, OfObjects]


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("is_called", [True, False], ids=["called", "not called"])
def test_in_turns_with_another_that_wraps_the_same_nothing_piles_up(
    other: type[Theirs], is_called: bool
) -> None:
    ours, theirs = Notes(), other()
    for cycle in range(1, 101):
        ours.on()
        theirs.on()
        assert called() == ["theirs", "ours"]
        ours.off()
        assert called() == ["theirs", "ours"]
        theirs.off()
        if is_called:
            assert called() == ["ours"]
            assert vars(Target)["own"] is ORIGINAL
            assert called() == []
        assert len(ours.heard) == cycle
    called()
    assert vars(Target)["own"] is ORIGINAL
    assert patches._deposed == []


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize("other", OTHERS)
def test_while_another_stays_there_is_one_layer_of_ours_that_is_used_again(
    other: type[Theirs],
) -> None:
    theirs = other()
    first = Notes("first")
    first.on()
    theirs.on()
    first.off()
    for cycle in range(50):
        ours = Notes(f"ours {cycle}")
        ours.on()
        assert called() == ["theirs", "ours"]
        ours.off()
        assert called() == ["theirs", "ours"]
        assert (ours.heard, len(patches._deposed)) == ([f"ours {cycle}"], 1)
    theirs.off()
    called()
    assert (vars(Target)["own"] is ORIGINAL, first.heard) == (True, [])


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize("other", OTHERS)
def test_over_another_ours_goes_and_comes_without_a_trace(other: type[Theirs]) -> None:
    theirs, ours = other(), Notes()
    theirs.on()
    before = vars(Target)["own"]
    for _ in range(50):
        ours.on()
        assert called() == ["ours", "theirs"]
        ours.off()
        assert vars(Target)["own"] is before
    theirs.off()
    assert (vars(Target)["own"], patches._deposed) == (ORIGINAL, [])


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize("other", [Plain, OfGlobals, OfObjects])
def test_one_that_puts_back_what_was_before_both_takes_ours_out_and_the_next_is_a_new_one(
    other: type[Theirs],
) -> None:
    theirs, ours = other(), Notes()
    for cycle in range(1, 51):
        theirs.on()
        ours.on()
        assert called() == ["ours", "theirs"]
        theirs.off()
        assert called() == []
        ours.off()
        assert (vars(Target)["own"] is ORIGINAL, len(ours.heard)) == (True, cycle)
    assert patches._deposed == []


@pytest.mark.usefixtures("target")
def test_two_of_ours_below_another_are_each_used_again() -> None:
    theirs, one, two = Theirs(), Notes("one"), Notes("two")
    for _ in range(50):
        one.on()
        two.on()
        theirs.on()
        assert called() == ["theirs", "ours", "ours"]
        one.off()
        two.off()
        two.on()
        called()
        two.off()
        theirs.off()
        called()
        called()
        assert vars(Target)["own"] is ORIGINAL
    assert (one.heard, two.heard) == (["one"] * 50, ["two"] * 100)


@pytest.mark.usefixtures("target")
def test_wrappers_that_can_not_be_found_again_are_few() -> None:
    """As below one that is made in C, or whose chain is very long."""
    ours = Notes()

    hidden = types.ModuleType("hidden")  # Modules are not looked into.
    for number in range(20):
        ours.on()
        setattr(hidden, f"own_{number}", Target.own)

        def own(*args: Any, number: int = number) -> list[str]:
            found: list[str] = getattr(hidden, f"own_{number}")(*args)
            return found

        Target.own = own  # type: ignore[method-assign, assignment]
        ours.off()
    assert called().count("ours") <= patches.MAX_LOST


@pytest.mark.usefixtures("target")
def test_a_wrapper_that_nobody_holds_is_forgotten() -> None:
    ours, theirs = Notes(), Plain()
    ours.on()
    theirs.on()
    ours.off()
    assert len(patches._deposed) == 1
    Target.own = ORIGINAL  # type: ignore[method-assign]
    theirs.found = None  # type: ignore[assignment]
    gc.collect()
    Patches().restore()
    assert patches._deposed == []


@pytest.mark.usefixtures("target")
def test_a_call_waits_for_nobody_who_patches() -> None:
    ours, theirs = Notes(), Theirs()
    ours.on()
    theirs.on()
    ours.off()
    theirs.off()
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with patches._lock:
            held.set()
            go_on.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    first = called()
    go_on.set()
    thread.join(20)
    assert (first, called(), called()) == (["ours"], ["ours"], [])
