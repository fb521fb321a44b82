from __future__ import annotations

import threading
from typing import Any

import pytest

from otel_leaks.model import KINDS
from otel_leaks.origins.recorder import starts
from otel_leaks.testing import selftest, verify_none

pytestmark = pytest.mark.usefixtures("small_heap")


def test_a_leak_of_every_kind_is_planted_and_found() -> None:
    assert tuple(selftest._PLANTED) == KINDS
    assert selftest.missed() == []


@pytest.mark.unwatched
def test_what_was_planted_is_taken_away_again() -> None:
    before = set(map(id, threading.enumerate()))
    with verify_none():
        assert selftest.missed() == []
    assert [each for each in threading.enumerate() if id(each) not in before] == []
    assert not starts.is_open


def test_a_kind_that_is_not_found_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    planted: dict[Any, Any] = {**selftest._PLANTED, "thread": lambda: None}
    monkeypatch.setattr(selftest, "_PLANTED", planted)
    assert selftest.missed() == ["a planted thread was not found"]


def test_a_kind_that_is_taken_for_another_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    planted: dict[Any, Any] = {
        **selftest._PLANTED,
        "thread": selftest._PLANTED["thread_pool"],
    }
    monkeypatch.setattr(selftest, "_PLANTED", planted)
    assert selftest.missed() == ["a planted thread was taken for thread_pool"]
