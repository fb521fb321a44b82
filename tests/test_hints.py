from __future__ import annotations

import pytest

from otel_leaks.hints import hint
from otel_leaks.model import KINDS, Kind, Pool, Sample, Site


def site(
    *functions: str,
    kind: Kind = "asyncio_task",
    waits_on: str | None = None,
    endless: bool = False,
) -> Site:
    sample = Sample(1, (), "Task-1", 0.0, waits_on=waits_on, endless=endless)
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
    told = hint(site("app.run", waits_on="asyncio.Future"))
    assert told is not None
    assert told.startswith("it waits on a future that nobody resolves")


def test_a_worker_of_a_pool_that_does_not_keep_up_says_how_many_jobs_wait() -> None:
    sample = Sample(1, (), "mail_0", 0.0, backlog=Pool(1, "mail", (7, 8), 2, 340))
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
