"""What a report says of who holds its leaks, and how long that may take."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from otel_leaks.runtime.frames import can_read
from otel_leaks.testing import Grace, LeaksFound, Report, find, holding, ignore_current, verify_none

pytestmark = [
    pytest.mark.skipif(not can_read(), reason="nothing is looked for without the GIL"),
    pytest.mark.allow_leaks(reason="tasks are left to the runner that cancels them"),
]

NAME = __name__

sessions: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test the time of a whole run, and what a loaded machine takes."""
    monkeypatch.setattr(holding, "_searches_took_s", 0.0)
    monkeypatch.setattr(holding, "SEARCH_S", 60.0)
    yield
    sessions.clear()


async def forever() -> None:
    """Wait for what nothing else refers to: there is one way to the task."""
    await asyncio.Event().wait()


def held_by(report: Report) -> list[str | None]:
    return [site.sample.held_by for site in report if site.sample is not None]


async def leaks() -> None:
    async with verify_none():
        sessions["secret"] = [asyncio.create_task(forever())]


def leaked() -> Report:
    with pytest.raises(LeaksFound) as found:
        asyncio.run(leaks())
    return found.value.report


def test_the_error_says_what_holds_a_leaked_task() -> None:
    report = leaked()
    assert held_by(report) == [f"{NAME}.sessions['...'][…]"]
    assert f"     held by  {NAME}.sessions['...'][…]\n" in str(report)


def test_json_has_it_too() -> None:
    (site,) = json.loads(leaked().to_json())["sites"]
    assert site["sample"]["held_by"] == f"{NAME}.sessions['...'][…]"


def test_find_says_it_where_it_is_asked_to() -> None:
    async def look(*, why: bool) -> Report:
        before = ignore_current()
        sessions["secret"] = asyncio.create_task(forever())
        await asyncio.sleep(0)
        return find(before, grace=Grace(attempts=1), why=why)

    assert held_by(asyncio.run(look(why=True))) == [f"{NAME}.sessions['...']"]
    assert held_by(asyncio.run(look(why=False))) == [None]


def test_find_says_it_of_threads() -> None:
    before = ignore_current()
    ends = threading.Event()

    def start() -> None:
        sessions["pump"] = threading.Thread(target=ends.wait)
        sessions["pump"].start()

    start()
    try:
        report = find(before, grace=Grace(attempts=1), why=True)
        assert held_by(report) == [f"{NAME}.sessions['...']"]
    finally:
        ends.set()
        sessions["pump"].join()


def started() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def end(child: subprocess.Popen[bytes]) -> None:
    with child:
        child.kill()


def test_a_child_process_is_held_by_what_holds_its_popen() -> None:
    with pytest.raises(LeaksFound) as found, verify_none(grace=Grace(attempts=1)):
        sessions["editor"] = started()
    try:
        assert held_by(found.value.report) == [f"{NAME}.sessions['...']"]
    finally:
        end(sessions["editor"])


# What is shown of a warning would hold its source.
@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")
def test_a_popen_that_was_dropped_is_held_by_nothing() -> None:
    def leave() -> None:
        with verify_none(grace=Grace(attempts=1)):
            sessions["pid"] = started().pid
            gc.collect()

    # Python keeps it until the process has ended.
    with pytest.raises(LeaksFound) as found:
        leave()
    try:
        assert held_by(found.value.report) == ["nothing: a child process lives by itself"]
    finally:
        (child,) = [each for each in vars(subprocess)["_active"] if each.pid == sessions["pid"]]
        end(child)
        vars(subprocess)["_active"].remove(child)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_is_held_by_its_pool_and_not_by_the_list_of_all_processes() -> None:
    with pytest.raises(LeaksFound) as found, verify_none(grace=Grace(attempts=1)):
        sessions["pool"] = multiprocessing.get_context("fork").Pool(1)
    try:
        processes = [each for each in found.value.report if each.kind == "child_process"]
        assert [each.sample and each.sample.held_by for each in processes] == [
            f"{NAME}.sessions['...']._pool[…]"
        ]
    finally:
        sessions["pool"].terminate()
        sessions["pool"].join()


def test_a_search_keeps_no_task_alive() -> None:
    (ref,) = [weakref.ref(each) for report in [leaked()] for each in sessions["secret"] if report]
    sessions.clear()
    # Its cancellation may be part of a cycle.
    gc.collect()
    assert ref() is None


def test_what_is_clean_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_leaks.runtime.holders.holders_of", None)

    async def clean() -> int:
        async with verify_none():
            return await asyncio.create_task(asyncio.sleep(0, 42))

    assert asyncio.run(clean()) == 42


def test_a_run_spends_no_more_than_its_time_on_it_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "SEARCHES_S", 0.0)
    assert held_by(leaked()) == ["not looked for: such searches have taken 0 s of this run"]
    assert held_by(leaked_found()) == [f"{NAME}.sessions['...']"]


def leaked_found() -> Report:
    async def look() -> Report:
        before = ignore_current()
        sessions["secret"] = asyncio.create_task(forever())
        await asyncio.sleep(0)
        return find(before, grace=Grace(attempts=1), why=True)

    return asyncio.run(look())


def test_a_search_that_fails_costs_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> list[str]:
        raise RuntimeError

    monkeypatch.setattr("otel_leaks.runtime.holders.holders_of", fails)
    report = leaked()
    assert held_by(report) == [None]
    assert "held by" not in str(report)
