"""The contract of the test door: find, verify_none, Grace, Report, LeaksFound, LeakTestCase."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import subprocess
import sys
import textwrap
import threading
import time
import unittest
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from otel_leaks import testing
from otel_leaks.model import Origin, Site
from otel_leaks.runtime import native
from otel_leaks.testing import (
    Grace,
    LeaksFound,
    LeakTestCase,
    Report,
    UnusedIgnoreWarning,
    find,
    ignore_any_function,
    ignore_created_by,
    ignore_current,
    ignore_fingerprint,
    ignore_module,
    ignore_task,
    ignore_thread,
    ignore_top_function,
    proving,
    verify_none,
)
from support.leaks import Stand, forever, settle, stopped_loop, stuck
from support.schemas import validate

ONCE = Grace(attempts=1)
NOW = Grace(attempts=3, max_delay_s=0.0)
leaves_tasks = pytest.mark.allow_leaks(reason="tasks are left to the runner that cancels them")


@pytest.fixture
def stand() -> Iterator[Stand]:
    """Give a place to stand, and let go all that stands there."""
    stand = Stand()
    yield stand
    stand.release(100)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the pauses that were slept; none is."""
    slept: list[float] = []
    monkeypatch.setattr(native, "sleep", slept.append)
    return slept


def begin(stand: Stand, name: str | None = None) -> threading.Thread:
    thread = threading.Thread(target=stuck, args=(stand,), name=name, daemon=True)
    thread.start()
    stand.arrived()
    return thread


def kinds(report: Report) -> dict[str, int]:
    found: dict[str, int] = {}
    for site in report:
        found[site.kind] = found.get(site.kind, 0) + site.count
    return found


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


# Grace


def test_pauses_double_up_to_the_longest_and_take_a_third_of_a_second_in_all() -> None:
    delays = list(Grace().delays_s())
    assert delays[:3] == [1e-6, 2e-6, 4e-6]
    assert (len(delays), delays[-1], round(sum(delays), 3)) == (19, 0.1, 0.331)


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"attempts": 0}, ValueError, "attempts must be >= 1, got 0"),
        ({"attempts": True}, TypeError, "attempts must be a whole number >= 1, got True"),
        ({"attempts": 2.5}, TypeError, "attempts must be a whole number >= 1, got 2.5"),
        ({"max_delay_s": -1}, ValueError, "max_delay_s must be >= 0 seconds, got -1"),
        ({"max_delay_s": float("nan")}, ValueError, "max_delay_s must be >= 0 seconds, got nan"),
        ({"max_delay_s": "1"}, TypeError, "max_delay_s must be a number of seconds >= 0, got '1'"),
    ],
)
def test_a_grace_that_makes_no_sense_is_an_error(
    values: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        Grace(**values)


def test_a_clean_scope_does_not_wait(pauses: list[float]) -> None:
    with verify_none():
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    assert pauses == []


def test_a_leaking_scope_is_looked_at_as_often_as_the_grace_says(
    stand: Stand, pauses: list[float]
) -> None:
    with pytest.raises(LeaksFound), verify_none(grace=Grace(attempts=4, max_delay_s=3e-6)):
        begin(stand)
    assert pauses == [1e-6, 2e-6, 3e-6]


def test_what_ends_within_the_grace_is_no_leak(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def sleep(_: float) -> None:
        stand.release()
        threads[0].join(20)

    monkeypatch.setattr(native, "sleep", sleep)
    with verify_none(grace=Grace(attempts=2)):
        threads.append(begin(stand))


@pytest.mark.parametrize(("timeout_s", "waited_s"), [(1000, 1.0), (None, 0.33)])
def test_what_may_wake_by_itself_is_waited_for_a_second(
    timeout_s: float | None, waited_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    never, stands = threading.Event(), threading.Event()

    def poll() -> None:
        stands.set()
        never.wait(timeout_s)

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    def leave_it() -> None:
        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        assert stands.wait(20)
        while "wait" not in sys._current_frames()[thread.ident or 0].f_code.co_name:
            native.sleep(0.001)
        monkeypatch.setattr(native, "sleep", sleep)
        monkeypatch.setattr(native, "monotonic", lambda: now_s[0])

    with pytest.raises(LeaksFound), verify_none():
        leave_it()
    monkeypatch.undo()
    never.set()
    assert now_s[0] == pytest.approx(waited_s, abs=0.01)


def test_what_is_between_two_waits_is_waited_for_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, pauses = [0.0], [0]
    first, stands, second = threading.Event(), threading.Event(), threading.Lock()
    threads: list[threading.Thread] = []

    def poll() -> None:
        stands.set()
        first.wait(1000)
        second.acquire()

    def stand_in(function: str) -> None:
        while sys._current_frames()[threads[0].ident or 0].f_code.co_name != function:
            time.sleep(0.001)

    def sleep(seconds: float) -> None:
        now_s[0] += seconds
        pauses[0] += 1
        if pauses[0] == Grace().attempts - 1:
            first.set()
            stand_in("poll")
        elif pauses[0] == Grace().attempts:
            second.release()
            threads[0].join(20)

    def leave_it() -> None:
        threads.append(threading.Thread(target=poll, daemon=True))
        threads[0].start()
        assert stands.wait(20)
        stand_in("wait")
        monkeypatch.setattr(native, "sleep", sleep)
        monkeypatch.setattr(native, "monotonic", lambda: now_s[0])

    second.acquire()
    with verify_none():
        leave_it()
    assert pauses == [Grace().attempts]


def test_while_it_waits_the_loop_runs() -> None:
    async def end_in(rounds: int) -> None:
        await settle(rounds)

    async def main() -> asyncio.Task[None]:
        async with verify_none(grace=Grace(attempts=5, max_delay_s=0.0)):
            task = asyncio.create_task(end_in(3))
        return task  # noqa: RET504 - it is alive until the block ended

    assert not asyncio.run(main()).cancelled()


@leaves_tasks
def test_while_it_waits_the_loop_is_not_blocked(pauses: list[float]) -> None:
    async def main() -> None:
        with pytest.raises(LeaksFound):
            async with verify_none(grace=NOW):
                tasks.append(asyncio.ensure_future(forever()))
        with pytest.raises(LeaksFound), verify_none(grace=NOW):
            tasks.append(asyncio.ensure_future(forever()))

    tasks: list[asyncio.Future[None]] = []
    asyncio.run(main())
    assert pauses == []


# Reports


def test_an_empty_report_is_false() -> None:
    report = Report()
    assert (bool(report), list(report), len(report), str(report)) == (False, [], 0, "no leaks")
    assert json.loads(report.to_json()) == {
        "schema": 1,
        "fingerprint_scheme": 1,
        "sites": [],
        "hidden": [],
    }


def test_a_report_says_what_leaked_where_it_waits_and_where_it_was_created(stand: Stand) -> None:
    with pytest.raises(LeaksFound) as raised, verify_none(grace=NOW):
        begin(stand, "poller")
    report = raised.value.report
    (site,) = report
    assert (site.kind, site.functions, site.count) == ("thread", ("support.leaks.stuck",), 1)
    assert site.origin is not None
    assert (site.origin.function, site.origin.file) == (f"{__name__}.begin", __file__)
    assert bool(report)
    assert str(raised.value) == str(report)
    for said in ("1 thread alive", "poller", f"in {__name__}.begin", site.fingerprint):
        assert said in str(report)
    body = json.loads(report.to_json())
    assert [(each["kind"], each["count"]) for each in body["sites"]] == [("thread", 1)]
    assert "followed" not in body["sites"][0]
    validate("report", body)


def test_leaks_found_is_an_assertion_error() -> None:
    assert issubclass(LeaksFound, AssertionError)


@leaves_tasks
def test_ten_thousand_equal_leaks_give_a_short_message() -> None:
    async def main() -> LeaksFound:
        tasks: list[asyncio.Future[None]] = []
        with pytest.raises(LeaksFound) as raised:  # noqa: PT012 - the block is what leaks
            async with verify_none(grace=ONCE):
                for _ in range(10_000):
                    tasks.append(asyncio.ensure_future(forever()))  # noqa: PERF401 - one line
                await settle(2)
        return raised.value

    error = asyncio.run(main())
    assert kinds(error.report) == {"asyncio_task": 10_000}
    assert len(error.report) == 1
    assert len(str(error)) < 3_000


def test_reports_are_added_without_telling_a_site_twice() -> None:
    a, b = (
        Site("thread", (name,), count, f"{name:0>12}") for name, count in (("app.a", 1), ("b", 2))
    )
    assert Report((a,)).plus(Report((a, b))) == Report((b, a))


def test_a_pending_task_that_is_then_destroyed_is_reported_once() -> None:
    origins = [Origin("app.begin", "app.py", line) for line in (1, 2)]
    pending = Site("asyncio_task", ("app.wait",), 1, "a" * 12, origin=origins[0])
    destroyed, another = (
        Site("destroyed_task", ("app.wait",), 1, "b" * 12, origin=each) for each in origins
    )
    assert Report((pending,)).plus(Report((destroyed, another))) == Report((pending, another))


# verify_none


def test_a_decorated_function_is_verified_and_keeps_its_name_and_result(stand: Stand) -> None:
    @verify_none(grace=NOW)
    def leave(*, is_leaking: bool) -> str:
        if is_leaking:
            begin(stand)
        return "done"

    assert (leave.__name__, leave(is_leaking=False)) == ("leave", "done")
    with pytest.raises(LeaksFound):
        leave(is_leaking=True)
    assert leave(is_leaking=False) == "done"


@leaves_tasks
def test_a_decorated_coroutine_function_stays_one_and_is_verified() -> None:
    tasks: list[asyncio.Future[None]] = []

    @verify_none(grace=NOW)
    async def leave(*, is_leaking: bool) -> str:
        if is_leaking:
            tasks.append(asyncio.ensure_future(forever()))
        return "done"

    async def main() -> None:
        assert await leave(is_leaking=False) == "done"
        with pytest.raises(LeaksFound):
            await leave(is_leaking=True)

    # asyncio's function is what older frameworks ask.
    assert asyncio.iscoroutinefunction(leave) if sys.version_info < (3, 14) else True
    asyncio.run(main())


@leaves_tasks
def test_of_concurrent_calls_of_one_decorated_function_only_the_leaking_one_fails() -> None:
    tasks: list[asyncio.Future[None]] = []

    @verify_none(grace=NOW)
    async def call(number: int) -> int:
        await settle(3)
        if number == 2:
            tasks.append(asyncio.ensure_future(forever()))
        await settle(3)
        return number

    async def main() -> list[Any]:
        return list(await asyncio.gather(*map(call, range(5)), return_exceptions=True))

    found = asyncio.run(main())
    assert [type(each) for each in found] == [int, int, LeaksFound, int, int]


def test_concurrent_calls_without_a_leak_all_pass() -> None:
    @verify_none()
    async def call(number: int) -> int:
        await asyncio.gather(*(settle(2) for _ in range(number)))
        return number

    async def main() -> list[int]:
        return list(await asyncio.gather(*map(call, range(20))))

    assert asyncio.run(main()) == list(range(20))


def test_calls_in_several_threads_are_checked_separately(stand: Stand) -> None:
    found: dict[int, str] = {}
    barrier = threading.Barrier(3)

    @verify_none(grace=NOW)
    def call(number: int) -> None:
        barrier.wait(20)
        if number == 1:
            begin(stand)
        barrier.wait(20)

    def run(number: int) -> None:
        try:
            call(number)
            found[number] = "clean"
        except LeaksFound:
            found[number] = "leaks"

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {0: "clean", 1: "leaks", 2: "clean"}


@leaves_tasks
def test_one_object_serves_several_blocks_at_once() -> None:
    verified = verify_none(grace=NOW)
    tasks: list[asyncio.Future[None]] = []

    async def call(number: int) -> None:
        async with verified:
            # The first to come is the first to go.
            await settle(number + 1)
            if number == 0:
                tasks.append(asyncio.ensure_future(forever()))

    async def main() -> list[Any]:
        return list(await asyncio.gather(*map(call, range(3)), return_exceptions=True))

    assert [type(each) for each in asyncio.run(main())] == [LeaksFound, type(None), type(None)]


@leaves_tasks
def test_a_task_of_an_unrelated_coroutine_is_not_blamed_on_the_scope() -> None:
    async def other(go: asyncio.Event, gone: asyncio.Event) -> None:
        await go.wait()
        tasks.append(asyncio.ensure_future(forever()))
        gone.set()

    async def main() -> None:
        go, gone = asyncio.Event(), asyncio.Event()
        unrelated = asyncio.ensure_future(other(go, gone))
        async with verify_none(grace=NOW):
            go.set()
            await gone.wait()
        await unrelated

    tasks: list[asyncio.Future[None]] = []
    asyncio.run(main())
    assert len(tasks) == 1


def test_an_inner_scope_reports_what_was_created_in_it_and_so_does_the_outer_one(
    stand: Stand,
) -> None:
    with pytest.raises(LeaksFound) as outer, verify_none(grace=NOW):  # noqa: PT012 - the block is what leaks
        with pytest.raises(LeaksFound) as inner, verify_none(grace=NOW):
            begin(stand)
        with verify_none(grace=NOW):
            pass
    assert kinds(inner.value.report) == kinds(outer.value.report) == {"thread": 1}


def test_the_exception_of_the_body_wins_and_carries_the_leaks_as_a_note(stand: Stand) -> None:
    with pytest.raises(KeyError) as raised, verify_none(grace=NOW):  # noqa: PT012 - the block is what leaks
        begin(stand)
        raise KeyError("theirs")
    (note,) = notes(raised.value)
    assert f"in {__name__}.begin" in note


def test_the_exception_of_an_async_body_wins() -> None:
    async def main() -> None:
        async with verify_none(grace=NOW):
            tasks.append(asyncio.ensure_future(forever()))
            await settle()
            raise KeyError("theirs")

    tasks: list[asyncio.Future[None]] = []
    with pytest.raises(KeyError) as raised:
        asyncio.run(main())
    (note,) = notes(raised.value)
    assert "1 asyncio task pending" in note


def test_the_exception_of_a_clean_body_has_no_note() -> None:
    with pytest.raises(KeyError) as raised, verify_none():
        raise KeyError("theirs")
    assert notes(raised.value) == []


def test_a_coroutine_that_is_closed_inside_is_closed() -> None:
    async def main() -> None:
        async with verify_none(grace=NOW):
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
            await asyncio.get_running_loop().create_future()

    with stopped_loop() as loop:
        asyncio._set_running_loop(loop)
        try:
            coro = main()
            coro.send(None)
            coro.close()
        finally:
            asyncio._set_running_loop(None)


def test_before_check_is_called_before_the_first_look(stand: Stand) -> None:
    threads: list[threading.Thread] = []

    def end() -> None:
        stand.release()
        threads[0].join(20)

    with verify_none(grace=ONCE, before_check=end):
        threads.append(begin(stand))


def test_before_check_may_be_async() -> None:
    async def main() -> None:
        async def cancel() -> None:
            task.cancel()
            await asyncio.wait([task])

        async with verify_none(grace=ONCE, before_check=cancel):
            task = asyncio.ensure_future(forever())
            await settle()

    asyncio.run(main())


def test_an_error_of_before_check_is_raised_but_never_masks_that_of_the_body() -> None:
    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"), verify_none(before_check=fail):
        pass
    with pytest.raises(KeyError) as raised, verify_none(before_check=fail):
        raise KeyError("theirs")
    assert notes(raised.value) == ["before_check raised OSError('no')"]


def test_generator_functions_are_refused() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def async_numbers() -> AsyncIterator[int]:
        yield 1

    for each in (numbers, async_numbers):
        with pytest.raises(TypeError, match="is a generator; use `with verify_none"):
            verify_none()(each)


wrong: Any = verify_none
wrong_find: Any = find


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: wrong("name-*"), 'ignores are made by ignore_thread("name-*")'),
        (lambda: wrong_find("name-*"), 'ignores are made by ignore_thread("name-*")'),
        (lambda: wrong(grace=3), "grace must be a Grace(attempts=20, max_delay_s=0.1)"),
        (lambda: wrong_find(grace=3), "grace must be a Grace(attempts=20, max_delay_s=0.1)"),
        (lambda: wrong(before_check=3), "before_check must be callable, got 3"),
        (lambda: wrong(retries=3), "retries"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_is_known(
    call: Callable[[], object], said: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(said)):
        call()


# Ignores


def app(stand: Stand) -> None:
    begin(stand, "leak-1")


@pytest.mark.parametrize(
    "ignore",
    [
        ignore_thread("leak-*"),
        ignore_top_function("support.leaks.stuck"),
        ignore_any_function("support.leaks.stuck"),
        ignore_module("support.*"),
        ignore_created_by("*.begin"),
    ],
    ids=lambda ignore: ignore.rule,
)
def test_what_is_ignored_is_no_leak(ignore: Any, stand: Stand) -> None:
    with verify_none(ignore, grace=ONCE):
        begin(stand, "leak-1")


def test_the_line_to_paste_ignores_the_leak(stand: Stand) -> None:
    with pytest.raises(LeaksFound) as raised, verify_none(grace=ONCE):
        begin(stand)
    line = re.search(r'ignore_fingerprint\("(\w+)"', str(raised.value))
    assert line is not None
    with verify_none(ignore_fingerprint(line[1]), grace=ONCE):
        begin(stand)


@leaves_tasks
def test_tasks_are_ignored_by_their_name() -> None:
    async def main() -> None:
        async with verify_none(ignore_task("heartbeat-*"), grace=ONCE):
            tasks.append(asyncio.create_task(forever(), name="heartbeat-1"))
            await settle()

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(main())


def test_the_message_says_how_many_were_hidden_by_which_ignore(stand: Stand) -> None:
    ignore = ignore_thread("mine-*", reason="a pool of ours")
    with pytest.raises(LeaksFound) as raised, verify_none(ignore, grace=ONCE):  # noqa: PT012 - the block is what leaks
        begin(stand, "mine-1")
        begin(stand, "mine-2")
        begin(stand, "other")
    assert f"hidden: 2 by {ignore}" in str(raised.value)


def test_an_ignore_that_hid_nothing_is_a_warning_where_it_was_given(stand: Stand) -> None:
    used, unused = ignore_thread("used-*"), ignore_thread("unused-*")
    with pytest.warns(UnusedIgnoreWarning) as told, verify_none(used, unused, grace=ONCE):
        begin(stand, "used-1")
    assert [(str(each.message), each.filename) for each in told] == [
        ('ignore_thread("unused-*") matched nothing', __file__)
    ]


def test_an_ignore_that_hid_nothing_is_a_warning_of_async_blocks_and_of_find_too() -> None:
    async def main() -> None:
        async with verify_none(ignore_thread("unused-*")):
            pass

    with pytest.warns(UnusedIgnoreWarning) as told:  # noqa: PT031 - two doors
        asyncio.run(main())
        find(ignore_thread("unused-2"), ignore_any_function("*"), grace=ONCE)
    texts = [(str(each.message), each.filename) for each in told if "unused" in str(each.message)]
    assert texts == [
        ('ignore_thread("unused-*") matched nothing', __file__),
        ('ignore_thread("unused-2") matched nothing', __file__),
    ]


def test_an_ignore_that_has_expired_says_so() -> None:
    expired = ignore_thread("old-*", until="2001-01-31")
    with (
        pytest.warns(UnusedIgnoreWarning, match="matched nothing; it has expired"),
        verify_none(expired),
    ):
        pass


def test_when_leaks_are_found_an_unused_ignore_stands_in_the_message(stand: Stand) -> None:
    with pytest.raises(LeaksFound) as raised, verify_none(ignore_thread("unused-*"), grace=ONCE):
        begin(stand)
    assert 'unused: ignore_thread("unused-*") matched nothing' in str(raised.value)


def test_what_lives_now_can_be_ignored_and_what_comes_later_is_found(stand: Stand) -> None:
    with stopped_loop() as loop:
        before = [begin(stand), loop.create_task(forever())]
        loop.run_until_complete(settle())
        current = ignore_current(reason="there before")
        clean = find(current, grace=ONCE)
        begin(stand, "late")
        task = loop.create_task(forever(), name="late")
        loop.run_until_complete(settle())
        late = find(current, grace=ONCE)
        del before, task
    assert kinds(clean) == {}
    assert sum(each.count for each in clean.hidden if "ignore_current" in each.ignore) >= 2
    assert kinds(late) == {"thread": 1, "asyncio_task": 1}


def test_that_nothing_was_alive_to_be_ignored_is_no_mistake() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnusedIgnoreWarning)
        with verify_none(ignore_current()):
            pass


def test_what_is_ignored_as_current_is_held_weakly() -> None:
    with stopped_loop() as loop:
        current: Any = ignore_current()
        assert current.objects.has(loop)
        assert not any(ref is current for ref in gc.get_referrers(loop))
    assert str(current) == "ignore_current()"


# find


def test_find_reports_everything_without_a_baseline(stand: Stand) -> None:
    with stopped_loop() as loop, ThreadPoolExecutor(1) as pool:
        current = ignore_current()
        begin(stand)
        thread_job = pool.submit(stuck, stand)
        stand.arrived()
        task = loop.create_task(forever())
        loop.run_until_complete(settle())
        report = find(current, grace=ONCE)
        stand.release(3)
        thread_job.result(20)
        del task
    assert kinds(report) == {"thread": 1, "work_item": 1, "asyncio_task": 1}


def test_find_raises_nothing_and_does_not_count_the_caller() -> None:
    async def main() -> list[str]:
        await asyncio.sleep(0)
        return [site.function for site in find(grace=ONCE) if site.kind == "asyncio_task"]

    assert f"{__name__}.main" not in asyncio.run(main())


def test_find_waits_for_what_is_about_to_end(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    current = ignore_current()
    thread = begin(stand)
    slept: list[float] = []

    def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        stand.release()
        thread.join(20)

    monkeypatch.setattr(native, "sleep", sleep)
    assert kinds(find(current)) == {}
    assert slept == [1e-6]


# What stays as it was


STATE = """
    import asyncio, logging, multiprocessing.process, subprocess, sys, threading
    import concurrent.futures.process, concurrent.futures.thread
    loops = [asyncio.BaseEventLoop, asyncio.SelectorEventLoop, asyncio.AbstractEventLoop]
    try:
        import uvloop
        loops.append(uvloop.Loop)
    except ImportError:
        pass
    OWNERS = [threading.Thread, threading, subprocess.Popen, asyncio, asyncio.tasks,
              multiprocessing.process.BaseProcess, asyncio.events, *loops,
              concurrent.futures.thread.ThreadPoolExecutor,
              concurrent.futures.process.ProcessPoolExecutor]

    def state():
        return {(repr(each), name): value for each in OWNERS for name, value in vars(each).items()}

    def changed(before):
        after = state()
        return sorted(f"{key}" for key in {*before, *after}
                      if before.get(key) is not after.get(key) and "__abc" not in key[1]
                      and key[1] not in {"_counter", "_active", "_limbo", "_main_thread",
                                         "_event_loop_policy"})
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(STATE) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_nothing_is_patched_after_the_last_scope_in_any_order_of_nesting() -> None:
    assert (
        run("""
        from otel_leaks.testing import verify_none
        before, hooks = state(), sys.get_asyncgen_hooks()
        a, b = verify_none(), verify_none()
        for order in ("abab", "abba", "aabb"):
            opened = set()
            for each in order:
                which = {"a": a, "b": b}[each]
                if each in opened:
                    which.__exit__(None, None, None)
                else:
                    opened.add(each)
                    which.__enter__()
                    assert "start" in "".join(changed(before))
            print(order, changed(before))

        async def main():
            async with verify_none():
                await asyncio.gather(asyncio.sleep(0), asyncio.to_thread(int))
        asyncio.run(main())
        print(changed(before), sys.get_asyncgen_hooks() == hooks)
    """)
        == "abab []\nabba []\naabb []\n[] True\n"
    )


def test_production_and_tests_take_their_patches_back_in_any_order() -> None:
    assert (
        run("""
        from otel_leaks import LeakInstrumentor
        from otel_leaks.testing import verify_none
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.metrics import MeterProvider
        providers = dict(tracer_provider=TracerProvider(), meter_provider=MeterProvider())
        LeakInstrumentor().instrument(**providers)
        LeakInstrumentor().uninstrument()
        before = state()
        for order in ("ipiP", "pipI"):
            block, production = verify_none(), LeakInstrumentor()
            production.instrument(**providers) if order[0] == "i" else block.__enter__()
            block.__enter__() if order[0] == "i" else production.instrument(**providers)
            if order[0] == "i":
                production.uninstrument()
                block.__exit__(None, None, None)
            else:
                block.__exit__(None, None, None)
                production.uninstrument()
            print(changed(before))
        for _ in range(2):
            with verify_none():
                LeakInstrumentor().instrument(**providers)
                LeakInstrumentor().uninstrument()
            LeakInstrumentor().instrument(**providers)
            with verify_none():
                pass
            LeakInstrumentor().uninstrument()
            print(changed(before))
    """)
        == "[]\n[]\n[]\n[]\n"
    )


@leaves_tasks
def test_the_hooks_debug_flag_factory_and_handlers_of_the_loop_stay() -> None:
    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(handler)

        def state() -> list[object]:
            return [
                loop.get_debug(),
                loop.get_exception_handler(),
                loop.get_task_factory(),
                getattr(loop, "slow_callback_duration", None),
                sys.get_asyncgen_hooks(),
                sys.get_coroutine_origin_tracking_depth(),
            ]

        before = state()
        async with verify_none():
            await asyncio.sleep(0)
        with pytest.raises(LeaksFound):  # noqa: PT012 - the block is what leaks
            async with verify_none(grace=NOW):
                tasks.append(asyncio.ensure_future(forever()))
                await settle()
        assert state() == before

    tasks: list[asyncio.Future[None]] = []
    asyncio.run(main())
    asyncio.run(main(), debug=True)


def test_no_log_handler_is_added() -> None:
    names = (None, "asyncio", "otel_leaks")
    before = [list(logging.getLogger(name).handlers) for name in names]
    with verify_none():
        pass
    assert [list(logging.getLogger(name).handlers) for name in names] == before


def test_a_child_that_can_not_be_started_is_the_bodys_own_error() -> None:
    with pytest.raises(FileNotFoundError) as raised, verify_none(grace=NOW):
        subprocess.Popen(["no-such-program-as-this"])
    assert notes(raised.value) == []


def test_a_thread_that_can_not_be_started_is_the_bodys_own_error() -> None:
    class Unhashable(threading.Thread):
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match="unhashable"), verify_none(grace=NOW):
        Unhashable(target=int).start()


def test_a_scope_that_is_left_in_another_context_is_left() -> None:
    """A fixture may run its two halves in two tasks."""

    async def fixture() -> AsyncIterator[None]:
        async with verify_none(grace=NOW):
            yield

    async def main() -> None:
        generator: Any = fixture()
        await asyncio.ensure_future(generator.__anext__())
        with pytest.raises(StopAsyncIteration):
            await asyncio.ensure_future(generator.__anext__())
        with verify_none(grace=NOW):
            pass

    asyncio.run(main())


def test_a_worker_that_was_created_in_a_scope_works_for_others(stand: Stand) -> None:
    """What it runs belongs to who submitted it, in a scope or in none."""
    with ThreadPoolExecutor(1) as pool:
        with verify_none(grace=NOW):
            pool.submit(int).result(20)
        with verify_none(grace=NOW):
            outside = threading.Thread(target=pool.submit, args=(stuck, stand))
            outside.start()
            outside.join()
            stand.arrived()
            stand.release()
        pool.submit(stuck, stand)
        stand.arrived()
        with verify_none(grace=NOW):
            pass
        stand.release()


# LeakTestCase


@contextmanager
def result_of(case: type[unittest.TestCase], name: str) -> Iterator[unittest.TestResult]:
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case(name).run(result)
    yield result


def outcome(case: type[unittest.TestCase], name: str) -> tuple[int, list[str], list[str]]:
    with result_of(case, name) as result:
        failures = [text.strip().splitlines()[-1] for _, text in result.failures]
        texts = [text for _, text in result.failures]
        assert all(f"in {__name__}." in text for text in texts)
        return result.testsRun, failures, [text for _, text in result.errors]


class Case(LeakTestCase):
    leak_grace = NOW
    leak_ignores = (ignore_thread("mine-*"),)
    stand = Stand()

    def leave(self) -> None:
        begin(self.stand)

    def leave_mine(self) -> None:
        begin(self.stand, "mine-1")

    def leave_nothing(self) -> None:
        self.assertEqual(1, 1)  # noqa: PT009 - unittest's own


class AsyncCase(LeakTestCase, unittest.IsolatedAsyncioTestCase):
    leak_grace = NOW

    async def leave(self) -> None:
        self.task = asyncio.ensure_future(forever())
        await settle()

    async def leave_nothing(self) -> None:
        await asyncio.gather(settle(), settle())


def test_a_test_case_fails_when_it_leaves_something_and_passes_when_not() -> None:
    with result_of(Case, "leave") as result:
        (failure,) = result.failures
    Case.stand.release(100)
    assert "1 thread alive" in failure[1]
    assert outcome(Case, "leave_nothing") == (1, [], [])
    assert outcome(Case, "leave_mine") == (1, [], [])


@pytest.mark.allow_leaks(reason="its case in a test leaves a task to its runner")
def test_an_async_test_case_fails_when_it_leaves_something_and_passes_when_not() -> None:
    with result_of(AsyncCase, "leave") as result:
        (failure,) = result.failures
    assert "1 asyncio task pending" in failure[1]
    assert outcome(AsyncCase, "leave_nothing") == (1, [], [])


def test_every_name_that_is_offered_exists() -> None:
    assert [name for name in testing.__all__ if not hasattr(testing, name)] == []


# Proof


def test_what_is_proved_of_a_task_is_in_its_report_and_costs_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proving, "_proofs_took_s", 0.0)
    # The heap of a whole test run takes longer to search than a report may.
    monkeypatch.setattr(proving, "PROOF_S", 50.0)
    monkeypatch.setattr(proving, "PROOFS_S", 100.0)

    async def work(jobs: asyncio.Queue[int]) -> None:
        await jobs.get()

    def proved() -> list[bool]:
        async def main() -> list[bool]:
            scope = verify_none(grace=Grace(attempts=3, max_delay_s=0))
            task = None
            try:
                async with scope:
                    task = asyncio.ensure_future(work(asyncio.Queue()))
                    await asyncio.sleep(0)
            except LeaksFound as found:
                return [bool(site.sample and site.sample.is_orphaned) for site in found.report]
            finally:
                if task is not None:
                    task.cancel()
            return []

        return asyncio.run(main())

    first = proved()
    took_s = proving._proofs_took_s
    monkeypatch.setattr(proving, "_proofs_took_s", proving.PROOFS_S)
    assert (first, 0 < took_s < proving.PROOFS_S, proved()) == ([True], True, [False])
    monkeypatch.setattr(proving, "_proofs_took_s", 0.0)
    monkeypatch.setattr(proving, "PROVED", 0)
    assert (proved(), proving._proofs_took_s) == ([False], 0)
