"""What a look says of tasks that have finished and that something still references."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from otel_leaks.model import Finished
from otel_leaks.report.files import documents_of
from otel_leaks.runtime.frames import can_read
from otel_leaks.testing import Grace, Report, find, holding, ignore_any_function, ignore_current
from support import schemas

NAME = __name__
ONCE = Grace(attempts=1)

results: dict[int, Any] = {}


@pytest.fixture(autouse=True)
def _results(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(holding, "SEARCH_S", 60.0)
    yield
    results.clear()


async def load(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def other(number: int) -> int:
    return await load(number)


def keep(count: int, function: Any = load) -> None:
    """Leave finished tasks of a function in a global."""

    async def main() -> None:
        tasks = [asyncio.create_task(function(number)) for number in range(count)]
        results.update({len(results) + i: task for i, task in enumerate(tasks)})
        await asyncio.gather(*tasks)

    asyncio.run(main())


def look(*ignores: Any, why: bool = False) -> Report:
    return find(*ignores, grace=ONCE, why=why)


def text(report: Report) -> str:
    """Return the message without what else lives here: the runner's own threads."""
    return str(Report(finished=report.finished))


def test_finished_tasks_that_a_global_keeps_are_counted_by_function() -> None:
    before = ignore_current()
    keep(150)
    keep(120, other)
    assert look(before).finished == (Finished(f"{NAME}.load", 150), Finished(f"{NAME}.other", 120))


def test_they_are_no_leak_and_the_text_says_how_to_find_what_holds_them() -> None:
    before = ignore_current()
    keep(100)
    report = look(before)
    assert not Report(finished=report.finished)
    assert text(report) == (
        "nothing leaked\n\n"
        f"100 finished tasks of {NAME}.load are still referenced; find(why=True) says by what"
    )


@pytest.mark.skipif(not can_read(), reason="nothing is looked for without the GIL")
def test_what_holds_them_is_said_on_demand() -> None:
    before = ignore_current()
    keep(100)
    report = look(before, why=True)
    assert report.finished == (Finished(f"{NAME}.load", 100, f"{NAME}.results[…]"),)
    assert text(report).endswith(f" are still referenced, held by {NAME}.results[…]")


def test_the_last_few_results_of_a_function_are_no_news() -> None:
    before = ignore_current()
    keep(99)
    assert look(before).finished == ()


def test_what_had_finished_when_the_ignore_was_made_is_not_counted() -> None:
    keep(150)
    before = ignore_current()
    keep(100)
    assert look(before).finished == (Finished(f"{NAME}.load", 100),)


def test_an_ignore_hides_them_and_is_used() -> None:
    before = ignore_current()
    keep(100)
    report = look(before, ignore_any_function(f"{NAME}.load"))
    assert report.finished == ()
    assert (f'ignore_any_function("{NAME}.load")', 100) in [
        (each.ignore, each.count) for each in report.hidden
    ]


def test_what_finished_is_in_the_json_and_read_from_there() -> None:
    before = ignore_current()
    keep(100)
    body = json.loads(look(before).to_json())
    schemas.validate("report", body)
    assert body["finished"] == [{"function": f"{NAME}.load", "count": 100, "held_by": None}]
    (document,) = documents_of(json.dumps(body).encode(), "report.json")
    said = f"100 finished tasks of {NAME}.load are still referenced; find(why=True) says by what"
    assert said in document.facts
