from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import Any

import pytest

from otel_leaks.model import KINDS, Frame, Kind, Origin, Pool, Sample, Site
from otel_leaks.report.hints import hint


def site(
    *functions: str,
    kind: Kind = "asyncio_task",
    waits_on: str | None = None,
    endless: bool = False,
    **facts: Any,
) -> Site:
    sample = Sample(1, (), "Task-1", 0.0, waits_on=waits_on, endless=endless, **facts)
    return Site(kind, functions, 1, "0" * 12, sample=sample)


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        (("app.work", "asyncio.queues.Queue.get"), "it waits on a queue that nobody fills"),
        (
            ("app.work", "queue.Queue.get", "threading.Condition.wait"),
            "it waits on a queue that nobody fills",
        ),
        (("app.subscribe", "asyncio.queues.Queue.get"), "a subscriber that nobody closes"),
        (("app.Listener.listen", "asyncio.locks.Event.wait"), "a subscriber that nobody closes"),
        (("app.consume", "asyncio.queues.Queue.put"), "a response that nobody reads"),
        (("app.send_request", "asyncio.locks.Event.wait"), "a response that nobody sends"),
        (("app.run", "asyncio.streams.StreamReader.readline"), "a response that nobody sends"),
        (("app.run", "asyncio.locks.Lock.acquire"), "it waits on a lock that is never released"),
        (("app.run", "threading.Event.wait", "threading.Condition.wait"), "it waits on an event"),
        (("threading.Timer.run", "threading.Event.wait"), "a timer that nobody cancels"),
        (("app.run", "socket.socket.accept"), "a server that nobody closes"),
        (
            (
                "asyncio.base_events.BaseEventLoop.run_forever",
                "asyncio.base_events.BaseEventLoop._run_once",
                "selectors.EpollSelector.select",
            ),
            "an event loop that nobody stops",
        ),
    ],
)
def test_a_known_wait_is_named(functions: tuple[str, ...], said: str) -> None:
    told = hint(site(*functions))
    assert told is not None
    assert told.startswith(said)


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        (
            ("app.work", "asyncio.queues.Queue.get"),
            "a background worker without an exit: it waits on a queue that nobody fills",
        ),
        (("app.work", "asyncio.tasks.sleep"), "a background worker without an exit: give its loop"),
        (("app.work", "app.inner"), "a background worker without an exit: give its loop"),
        (("app.work", "asyncio.locks.Event.wait"), "it waits on an event that nobody sets"),
        (("app.work", "asyncio.queues.Queue.put"), "a response that nobody reads"),
    ],
)
def test_a_loop_without_an_exit_is_named(functions: tuple[str, ...], said: str) -> None:
    told = hint(site(*functions, endless=True))
    assert told is not None
    assert told.startswith(said)


@pytest.mark.parametrize(
    "functions",
    [
        ("app.poll", "asyncio.tasks.sleep"),
        ("app.work", "asyncio.tasks.wait_for", "asyncio.queues.Queue.get"),
        ("app.gather", "asyncio.tasks.wait", "asyncio.tasks._wait"),
    ],
)
def test_what_may_wake_by_itself_is_not_guessed_at(functions: tuple[str, ...]) -> None:
    assert hint(site(*functions, waits_on="asyncio.Future")) is None


@pytest.mark.parametrize(
    "function",
    [
        "app.queue.Queue.get",
        "app.asyncio.queues.Queue.get",
        "queue.Queue.get_all",
        "queue.Queued.get",
    ],
)
def test_a_function_of_ones_own_is_not_taken_for_that_of_a_library(function: str) -> None:
    assert hint(site("app.run", function)) is None


def test_a_lock_of_a_dead_thread_is_named_before_anything_else() -> None:
    sample = Sample(1, (), "Thread-1", 0.0, dead_owner=True, endless=True)
    told = hint(Site("thread", ("app.run",), 1, "0" * 12, sample=sample))
    assert told is not None
    assert told.startswith("a lock held by a dead thread")


def test_a_future_that_is_awaited_directly_is_named() -> None:
    told = hint(site("app.run", waits_on="asyncio.Future", timed=False))
    assert told is not None
    assert told.startswith("it waits on a future that nobody resolves")


def test_a_worker_of_a_pool_that_does_not_keep_up_says_how_many_jobs_wait() -> None:
    sample = Sample(1, (), "mail_0", 0.0, backlog=Pool(1, "mail", (7, 8), 2, 340, longer=3))
    told = hint(Site("thread", ("app.send", "queue.Queue.get"), 2, "0" * 12, sample=sample))
    assert told is not None
    assert told.startswith(
        "a pool that does not keep up: all 2 threads of mail are busy, and its queue has only "
        "grown, to 340 jobs"
    )


def test_what_is_not_known_is_not_guessed_at() -> None:
    assert hint(site("app.run", "app.inner")) is None
    assert hint(site("app.run", waits_on="asyncio.Task of app.inner")) is None


def test_a_wait_far_out_in_the_stack_says_nothing_of_where_it_stands() -> None:
    assert hint(site("asyncio.tasks.sleep", "app.a", "app.b", "app.c")) is None


@pytest.mark.parametrize(
    "kind",
    [each for each in KINDS if each not in {"thread", "asyncio_task", "work_item"}],
)
def test_a_kind_that_is_a_pattern_by_itself_has_its_sentence(kind: Kind) -> None:
    assert hint(site("app.run", kind=kind)) is not None


def test_hints_are_one_sentence_without_a_full_stop() -> None:
    told = [hint(site("app.run", kind=kind)) for kind in KINDS]
    told += [hint(site("app.run", "asyncio.queues.Queue.put"))]
    assert [
        each for each in told if each is not None and (each.endswith(".") or "\n" in each)
    ] == []


WAITS = [
    ("app.work", "queue.Queue.get", "threading.Condition.wait"),
    ("app.work", "threading.Event.wait", "threading.Condition.wait"),
    ("app.work", "threading.Condition.wait"),
    ("app.listen", "queue.Queue.get", "threading.Condition.wait"),
    ("app.request", "queue.Queue.get", "threading.Condition.wait"),
    ("app.work", "app.inner"),
]


@pytest.mark.parametrize("functions", WAITS)
@pytest.mark.parametrize("kind", ["thread", "work_item"])
@pytest.mark.parametrize("endless", [False, True])
def test_a_hint_never_asks_to_cancel_or_await_a_thread(
    functions: tuple[str, ...], kind: Kind, endless: bool
) -> None:
    said = hint(site(*functions, kind=kind, endless=endless)) or ""
    assert "cancel" not in said
    assert "await" not in said
    assert ("join" in said) == (bool(said) and "request" not in functions[0])


@pytest.mark.parametrize(
    "functions",
    [
        ("app.poll", "queue.Queue.get", "threading.Condition.wait"),
        ("app.poll", "asyncio.queues.Queue.get"),
        ("app.poll", "asyncio.locks.Event.wait"),
    ],
)
def test_what_a_timer_wakes_waits_for_nobody(functions: tuple[str, ...]) -> None:
    assert hint(site(*functions, timed=False)) is not None
    assert hint(site(*functions, timed=True)) is None


@pytest.mark.parametrize("timed", [True, None])
def test_a_future_that_a_timer_may_resolve_is_not_said_to_be_left(timed: bool | None) -> None:
    assert hint(site("app.run", waits_on="asyncio.Future", timed=timed)) is None


def test_a_timer_that_fires_once_is_to_be_cancelled_though_it_ends_by_itself() -> None:
    functions = ("threading.Timer.run", "threading.Event.wait", "threading.Condition.wait")
    said = hint(site(*functions, kind="thread", timed=True))
    assert said == "a timer that nobody cancels: call cancel() when its owner ends"


def test_a_task_that_goes_on_though_it_was_cancelled_says_so() -> None:
    said = hint(site("app.serve", "asyncio.tasks.sleep", endless=True, cancelled=True))
    assert said is not None
    assert said.startswith("its cancellation was requested but it continues")


def test_a_job_in_another_thread_is_what_a_task_waits_for() -> None:
    said = hint(site("app.run", waits_on="concurrent.futures._base.Future"))
    assert said is not None
    assert said.startswith("it waits for a job in another thread")


def test_what_gathers_others_is_not_what_hangs() -> None:
    assert hint(site("app.run", waits_on="asyncio.tasks._GatheringFuture")) is None


PYTHON = os.path.dirname(threading.__file__)  # noqa: PTH120 - as frames name it
OWN = Origin("app.start", "/srv/app.py", 3)
DRIVER = "/srv/lib/site-packages/driver/connection.py"


def inside(*frames: tuple[str, str], kind: Kind = "thread", origin: Origin | None = OWN) -> Site:
    """Return a site whose stack is *frames*: functions and the files that they are in."""
    functions = tuple(function for function, _ in frames)
    found = site(*functions, kind=kind)
    assert found.sample is not None
    stack = tuple(Frame(function, file, 1) for function, file in frames)
    return replace(found, sample=replace(found.sample, stack=stack), origin=origin)


QUEUE = ("queue.Queue.get", f"{PYTHON}/queue.py")


def test_what_runs_only_code_of_a_library_is_ended_by_closing_what_was_made_of_it() -> None:
    found = inside(("driver.connection.Reader.run", DRIVER), QUEUE)
    closing = "it belongs to driver: close what you created with driver when you are done"
    assert hint(found) == closing
    # What is shown has other paths.
    shown = inside(("driver.connection.Reader.run", "...connection.py"), QUEUE)
    assert hint(shown, found) == closing


def test_own_code_that_a_library_runs_is_own_code() -> None:
    found = inside(("driver.connection.Reader.run", DRIVER), ("app.on_message", OWN.file), QUEUE)
    assert hint(found) == hint(site("app.on_message", "queue.Queue.get", kind="thread"))


def test_an_installed_application_is_not_taken_for_a_library() -> None:
    installed = Origin("shop.start", "/srv/lib/site-packages/shop/main.py", 3)
    found = inside(("shop.work", "/srv/lib/site-packages/shop/work.py"), QUEUE, origin=installed)
    assert hint(found) == hint(site("shop.work", "queue.Queue.get", kind="thread"))


def test_a_pool_that_a_library_opened_is_closed_with_what_was_made_of_it() -> None:
    by = replace(OWN, library=Frame("driver.connection.connect", DRIVER, 9))
    pool = Site("thread_pool", ("driver.connection.connect",), 1, "0" * 12, origin=by)
    assert (
        hint(pool) == "it belongs to driver: close what you created with driver when you are done"
    )
    own = replace(pool, origin=OWN)
    assert hint(own) == "use it in a `with` block, or call shutdown() when its owner ends"
    by = replace(by, library=Frame("asyncio.base_events.BaseEventLoop.run_in_executor", PYTHON, 9))
    assert hint(replace(pool, origin=by)) == hint(own)


def test_what_a_class_of_python_waits_in_is_ended_by_that_class() -> None:
    listener = ("logging.handlers.QueueListener._monitor", f"{PYTHON}/logging/handlers.py")
    said = (
        "it belongs to logging.handlers.QueueListener: call its stop(), close() or shutdown() when"
    )
    assert hint(inside(listener, QUEUE)) == f"{said} you are done"
    # What a thread was handed to run is not such a class.
    assert hint(inside(QUEUE)) == hint(site("queue.Queue.get", kind="thread"))


def test_a_worker_that_has_no_job_lacks_nothing() -> None:
    functions = ("pool io", "queue.Queue.get", "threading.Condition.wait")
    assert hint(replace(site(*functions, kind="thread"), idle=True)) is None


def test_a_destroyed_task_may_be_one_that_gather_left() -> None:
    said = hint(site("app.run", kind="destroyed_task"))
    assert said is not None
    assert "TaskGroup" in said
    assert "gather()" in said
