from __future__ import annotations

import gc
import weakref

from otel_leaks.census.serials import Known, Serials


class Thing:
    """Can be neither hashed nor compared, as a subclass of Thread may be."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a thing was compared")


def test_an_object_keeps_its_serial_and_the_time_it_was_first_seen() -> None:
    serials = Serials()
    one, other = Thing(), Thing()
    seen = [
        serials.know(weakref.ref(one), 1.0),
        serials.know(weakref.ref(other), 2.0),
        serials.know(weakref.ref(one), 3.0),
    ]
    assert [(known.serial, known.first_seen) for known in seen] == [(1, 1.0), (2, 2.0), (1, 1.0)]


def test_an_object_with_the_id_of_a_dead_one_is_another_object() -> None:
    serials = Serials()
    seen: set[int] = set()
    for number in range(1, 100):
        thing = Thing()
        lies_at = id(thing)
        assert serials.know(weakref.ref(thing), float(number)).serial == number
        del thing
        if lies_at in seen:
            return
        seen.add(lies_at)
    raise AssertionError("no id was reused: the test has tested nothing")


def test_an_object_is_held_weakly() -> None:
    serials = Serials()
    thing = Thing()
    ref = weakref.ref(thing)
    serials.know(weakref.ref(thing), 1.0)
    gc.disable()
    try:
        del thing
        assert ref() is None
    finally:
        gc.enable()


def test_what_is_not_kept_is_forgotten_and_gets_a_new_serial() -> None:
    serials = Serials()
    kept, dropped = Thing(), Thing()
    known = serials.know(weakref.ref(kept), 1.0)
    serials.know(weakref.ref(dropped), 1.0)
    serials.keep([known])
    assert list(serials) == [known]
    assert len(serials) == 1
    assert serials.know(weakref.ref(dropped), 5.0)[1:] == (3, 5.0)


def test_what_is_kept_and_dead_is_forgotten() -> None:
    serials = Serials()
    thing = Thing()
    known: Known = serials.know(weakref.ref(thing), 1.0)
    del thing
    serials.keep([known])
    assert len(serials) == 0
