from __future__ import annotations

import pytest

from otel_leaks.hints import hint
from otel_leaks.model import KINDS, Kind, Pool, Sample, Site


def site(*functions: str, kind: Kind = "asyncio_task", waits_on: str | None = None) -> Site:
    sample = Sample(1, (), "Task-1", 0.0, waits_on=waits_on)
    return Site(kind, functions, 1, "0" * 12, sample=sample)


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        (("app.work", "asyncio.queues.Queue.get"), "a background worker without an exit"),
        (("app.work", "queue.Queue.get", "threading.Condition.wait"), "a background worker"),
        (("app.subscribe", "asyncio.queues.Queue.get"), "a subscriber that nobody closes"),
        (("app.Listener.listen", "asyncio.locks.Event.wait"), "a subscriber that nobody closes"),
        (("app.consume", "asyncio.queues.Queue.put"), "a response that nobody reads"),
        (("app.send_request", "asyncio.locks.Event.wait"), "a response that nobody sends"),
        (("app.run", "asyncio.streams.StreamReader.readline"), "a response that nobody sends"),
        (("app.run", "asyncio.locks.Lock.acquire"), "it waits on a lock that is never released"),
        (("app.run", "asyncio.tasks.sleep"), "a background worker without an exit"),
        (("app.run", "threading.Event.wait", "threading.Condition.wait"), "it waits on an event"),
        (("app.run", "socket.socket.accept"), "a server or a reader of a socket"),
    ],
)
def test_a_known_wait_is_named(functions: tuple[str, ...], said: str) -> None:
    told = hint(site(*functions))
    assert told is not None
    assert told.startswith(said)


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
