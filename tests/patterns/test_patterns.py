"""The three classic leaks: reported with the name of their pattern; once fixed, not reported."""

from __future__ import annotations

import asyncio
import gc

import pytest

from otel_leaks.testing import Grace, LeaksFound, Report, verify_none
from patterns.pages import run

pytestmark = pytest.mark.usefixtures("forked_pages")

LEAKING = {
    "patterns/subscriber/leaking.py": "hint     a subscriber that nobody closes: ",
    "patterns/response/leaking.py": "hint     a response that nobody sends: ",
    "patterns/response/leaking_thread.py": "hint     a response that nobody reads: ",
    "patterns/worker/leaking.py": "hint     a background worker without an exit: ",
    "patterns/worker/leaking_thread.py": "hint     a background worker without an exit: ",
}
CREATED_IN = {
    "patterns/subscriber/leaking.py": "test_subscriber.Page.__init__",
    "patterns/response/leaking.py": "test_response.ask_all",
    "patterns/response/leaking_thread.py": "test_response_thread.first_price",
    "patterns/worker/leaking.py": "test_worker.Mailer.__init__",
    "patterns/worker/leaking_thread.py": "test_worker_thread.Mailer.__init__",
}


@pytest.mark.parametrize("program", LEAKING)
def test_the_leaking_one_fails_and_its_pattern_is_named(program: str) -> None:
    ran = run(program)
    assert ran.code == 1, ran.output
    assert "1 failed in" in ran.output
    assert LEAKING[program] in ran.message


@pytest.mark.parametrize("program", CREATED_IN)
def test_the_message_says_what_created_it(program: str) -> None:
    lines = run(program).message.splitlines()
    (created,) = [line for line in lines if line.startswith("     created")]
    assert created.removesuffix(".<locals>.<listcomp>").endswith(f" in {CREATED_IN[program]}")


@pytest.mark.parametrize("program", [name.replace("leaking", "fixed") for name in LEAKING])
def test_the_fixed_one_passes(program: str) -> None:
    ran = run(program)
    assert ran.code == 0, ran.output
    assert "1 passed in" in ran.output


@pytest.mark.allow_leaks(reason="it is about a task that is destroyed")
def test_a_task_that_our_own_collecting_destroys_is_reported_as_it_was_before() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    @verify_none(grace=Grace(attempts=2, max_delay_s=0))
    async def leave() -> None:
        asyncio.create_task(wait())  # noqa: RUF006 - held by nothing but itself
        await asyncio.sleep(0)

    async def main() -> Report:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        with pytest.raises(LeaksFound) as found:
            await leave()
        return found.value.report

    gc.disable()  # It collects when we do, not when it likes to.
    try:
        report = asyncio.run(main())
    finally:
        gc.enable()
    assert [(site.kind, site.count) for site in report] == [("asyncio_task", 1)]
