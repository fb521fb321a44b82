from __future__ import annotations

from otel_leaks.telemetry.admission import Admission, fitting


def test_each_has_what_it_wants_where_there_is_room() -> None:
    assert fitting(100, [(18, 2), (20, 1)], [False, False]) == [18, 20]


def test_those_with_the_most_series_get_fewer_names() -> None:
    # (12 + 1) * 2 + (20 + 1) is 47, one more name of threads would be 49.
    assert fitting(48, [(18, 2), (20, 1)], [False, False]) == [12, 20]


def test_a_counter_has_what_it_wants_in_any_case() -> None:
    assert fitting(30, [(20, 1), (20, 1)], [False, True]) == [8, 20]


def test_without_room_nothing_is_named() -> None:
    assert fitting(0, [(3, 1), (2, 2)], [False, False]) == [0, 0]
    assert fitting(5, [], []) == []


def test_the_smallest_lose_their_names_when_there_is_less_room() -> None:
    admission = Admission()
    counts = {"a": 3, "b": 9, "c": 5}
    assert admission.wants(counts) == 3
    assert admission.admit(counts) == {"a", "b", "c"}
    assert admission.admit(counts, 2) == {"b", "c"}
    assert admission.admit(counts, 0) == set()
    assert admission.admit(counts, 3) == {"a", "b", "c"}


def test_it_wants_no_more_names_than_its_life_has_left() -> None:
    admission = Admission(in_a_life=3)
    admission.admit({"a": 1, "b": 1})
    assert admission.wants({"c": 1, "d": 1}) == 3
