"""Coroutines that were never awaited: which are noted, and where they were created."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from unittest.mock import AsyncMock

import pytest

from otel_leaks.errors import LeaksFound
from otel_leaks.origins.recorder import starts
from otel_leaks.testing import Grace, verify_none

pytestmark = pytest.mark.unwatched

QUICK = Grace(attempts=1)
ORIGINAL = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]


async def fetch() -> None:
    """Never run."""


def left(body: Callable[[], object]) -> list[tuple[str, int, str | None]]:
    """Return what *body* leaves: the coroutine, how many, and the function that created it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            with verify_none(grace=QUICK):
                body()
        except LeaksFound as found:
            return [
                (site.function, site.count, site.origin.function if site.origin else None)
                for site in found.report
                if site.kind == "coroutine"
            ]
    return []


@pytest.fixture
def tracking() -> Iterator[None]:
    depth = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(1)
    yield
    sys.set_coroutine_origin_tracking_depth(depth)


def forget_two() -> None:
    for _ in range(2):
        fetch()  # type: ignore[unused-coroutine]


def create() -> object:
    return fetch()


def test_a_call_without_await_is_left_and_says_where() -> None:
    assert left(forget_two) == [(f"{__name__}.fetch", 2, f"{__name__}.forget_two")]


def test_where_it_was_created_is_known_though_it_goes_elsewhere(tracking: None) -> None:
    def body() -> None:
        kept = [create()]
        kept.clear()

    assert left(body) == [(f"{__name__}.fetch", 1, f"{__name__}.create")]


def test_the_message_names_the_coroutine_and_the_line() -> None:
    with (
        pytest.raises(LeaksFound, match=r"^1 coroutine never awaited: .*fetch, created at "),
        pytest.warns(RuntimeWarning, match="never awaited"),
        verify_none(grace=QUICK),
    ):
        fetch()  # type: ignore[unused-coroutine]


def test_what_the_garbage_collector_takes_is_charged_to_nobody() -> None:
    def body() -> None:
        cycle: list[object] = [fetch()]
        cycle.append(cycle)
        del cycle
        gc.collect()

    assert left(body) == []


def test_what_is_closed_or_a_double_is_left_by_nobody() -> None:
    assert left(lambda: fetch().close()) == []
    assert left(AsyncMock()) == []


def test_pythons_warning_is_what_it_was() -> None:
    def warned() -> list[tuple[str, str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fetch()  # type: ignore[unused-coroutine]
        return [(str(each.message), each.filename) for each in caught]

    without = warned()
    end = starts.note_coroutines()
    try:
        assert warned() == without == [("coroutine 'fetch' was never awaited", __file__)]
    finally:
        end()


def test_the_warning_function_is_restored_with_the_last_user() -> None:
    first, second = starts.note_coroutines(), starts.note_coroutines()
    first()
    first()
    assert warnings._warn_unawaited_coroutine is not ORIGINAL  # type: ignore[attr-defined]
    second()
    assert warnings._warn_unawaited_coroutine is ORIGINAL  # type: ignore[attr-defined]
