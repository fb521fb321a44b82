"""What every source owes: each test here runs for each of them."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import pytest

from otel_leaks.census import SOURCES, CensusEnded, Source
from otel_leaks.census.destroyed import DestroyedSource
from otel_leaks.census.followed import FOLLOWED_OF_SITE
from otel_leaks.census.source import Look
from otel_leaks.ignores import (
    Ignore,
    ignore_any_function,
    ignore_module,
    ignore_task,
    ignore_thread,
)
from otel_leaks.model import Followed, Hidden, Kind, Population, Site
from support.leaks import (
    ONLY_LEAKS,
    Stand,
    forever,
    look,
    running_loop,
    settle,
    stopped_loop,
    stuck,
)


class Things:
    """Things that stand until they are let go; then they end of their own accord."""

    def __init__(self, things: list[Any], let_go: Callable[[], None]) -> None:
        self.things = things
        self.let_go = let_go


class Maker(Protocol):
    """What the contract has to know of one kind."""

    kind: Kind
    function: str
    """What things run that are made without a target."""
    others: tuple[Ignore, ...]
    """Hide what else there is in the process of the tests."""

    def by_name(self, pattern: str) -> Ignore:
        """Return the ignore of things by their name; theirs is leak-N."""

    def make(self, count: int, target: Callable[..., Any] | None = None) -> Things:
        """Make things that stand."""

    def churn(self) -> AbstractContextManager[None]:
        """Make and end other things all the time until the block ends."""


class Threads:
    kind: Kind = "thread"
    function = "support.leaks.stuck"
    others: tuple[Ignore, ...] = (ONLY_LEAKS,)

    def by_name(self, pattern: str) -> Ignore:
        return ignore_thread(pattern)

    def make(self, count: int, target: Callable[..., Any] | None = None) -> Things:
        stand = Stand()
        threads = [
            threading.Thread(target=target or stuck, args=(stand,), name=f"leak-{i}")
            for i in range(count)
        ]
        for thread in threads:
            thread.start()
        stand.arrived(count)

        def let_go() -> None:
            stand.release(count)
            while threads:
                threads.pop().join(20)

        return Things(threads, let_go)

    @contextmanager
    def churn(self) -> Iterator[None]:
        stop, begun = threading.Event(), threading.Event()

        def spawn() -> None:
            while not stop.is_set():
                few = [threading.Thread(target=len, args=("",), name="leak-x") for _ in range(5)]
                for thread in few:
                    thread.start()
                for thread in few:
                    thread.join()
                begun.set()

        spawner = threading.Thread(target=spawn, name="spawner")
        spawner.start()
        assert begun.wait(20)
        try:
            yield
        finally:
            stop.set()
            spawner.join(20)


async def stand_in(stand: Stand) -> None:
    await stand.wait()  # type: ignore[misc]


class Tasks:
    kind: Kind = "asyncio_task"
    function = f"{__name__}.stand_in"
    others: tuple[Ignore, ...] = ()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def by_name(self, pattern: str) -> Ignore:
        return ignore_task(pattern)

    def make(self, count: int, target: Callable[..., Any] | None = None) -> Things:
        futures: list[asyncio.Future[None]] = []

        def wait() -> asyncio.Future[None]:
            futures.append(self._loop.create_future())
            return futures[-1]

        stand = Stand()
        stand.wait = wait
        stand.say = lambda _: None
        tasks = [
            self._loop.create_task((target or stand_in)(stand), name=f"leak-{i}")
            for i in range(count)
        ]
        self._loop.run_until_complete(settle())

        def let_go() -> None:
            while futures:
                futures.pop().set_result(None)
            self._loop.run_until_complete(settle())
            assert all(task.done() for task in tasks)
            tasks.clear()

        return Things(tasks, let_go)

    @contextmanager
    def churn(self) -> Iterator[None]:
        stop, begun = threading.Event(), threading.Event()

        async def spawn() -> None:
            while not stop.is_set():
                await asyncio.gather(*(settle(1) for _ in range(20)))
                begun.set()

        with running_loop() as running:
            spawning = asyncio.run_coroutine_threadsafe(spawn(), running.loop)
            assert begun.wait(20)
            try:
                yield
            finally:
                stop.set()
                spawning.result(20)


# What is destroyed can't be made to stand and be let go; test_destroyed.py has its own.
LIVING = [make for make in SOURCES if make is not DestroyedSource]


@pytest.fixture(params=LIVING, ids=lambda make: make.__name__)
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    made: Source = request.param()
    made.open()
    yield made
    made.close()


@pytest.fixture
def maker(source: Source) -> Iterator[Maker]:
    """Give the maker of the source's kind; a source of a new kind fails without one."""
    with stopped_loop() as loop:
        makers: list[Maker] = [Threads(), Tasks(loop)]
        yield next(each for each in makers if each.kind == source.kind)


@pytest.fixture
def make(maker: Maker) -> Iterator[Callable[..., Things]]:
    made: list[Things] = []

    def make(count: int, target: Callable[..., Any] | None = None) -> Things:
        made.append(maker.make(count, target))
        return made[-1]

    yield make
    for things in made:
        if things.things:
            things.let_go()


def read(source: Source, maker: Maker, *ignores: Ignore, **options: Any) -> Population:
    return source.read(look(*ignores, *maker.others, **options))


def defined(name: str, module: str, *, coroutine: bool) -> tuple[Callable[..., Any], Any]:
    """Define a function that stands, and return it with its code."""
    text = (
        "async def {0}(stand):\n    await stand.wait()\n"
        if coroutine
        else ("def {0}(stand):\n    stand.say(None) or stand.wait()\n")
    )
    names: dict[str, Any] = {"__name__": module}
    exec(text.format(name), names)
    function = names.pop(name)
    return function, function.__code__


def several(maker: Maker, *names: str, module: str = "app") -> list[Callable[..., Any]]:
    return [defined(name, module, coroutine=maker.kind == "asyncio_task")[0] for name in names]


def plain(site: Site) -> tuple[tuple[str, ...], int]:
    return site.functions, site.count


def test_it_finds_exactly_what_is_there(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    a, b = several(maker, "a", "b")
    make(7, a)
    make(3, b)
    found = read(source, maker)
    assert (found.kind, found.count, found.site_count) == (maker.kind, 10, 2)
    assert list(map(plain, found.sites)) == [(("app.a",), 7), (("app.b",), 3)]


def test_it_finds_nothing_when_there_is_nothing(source: Source, maker: Maker) -> None:
    assert read(source, maker) == Population(maker.kind, 0, hidden=read(source, maker).hidden)


def test_what_ended_is_not_counted(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    ended = make(5)
    make(2)
    before = read(source, maker).count
    ended.let_go()
    assert (before, read(source, maker).count) == (7, 2)


def test_it_is_readable_from_another_thread(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(4)
    found: list[Population] = []
    reader = threading.Thread(target=lambda: found.append(read(source, maker)), name="reader")
    reader.start()
    reader.join(20)
    assert [list(map(plain, each.sites)) for each in found] == [[((maker.function,), 4)]]


def test_it_survives_objects_that_start_and_end_meanwhile(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(40)
    with maker.churn():
        found = [read(source, maker) for _ in range(200)]
    stable = [
        [site.count for site in each.sites if site.functions == (maker.function,)] for each in found
    ]
    assert stable == [[40]] * 200


class Token:
    """Lies in the frame of a thing."""


@pytest.mark.usefixtures("unmeasured")
def test_it_keeps_nothing_of_what_it_saw(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    """Without help of the garbage collector, which an application may have turned off."""

    def alive(*, looked_at: bool) -> list[str]:
        function, code = defined("once", "app", coroutine=maker.kind == "asyncio_task")
        things = make(3, function)
        watched = [("code", weakref.ref(code)), *(("thing", weakref.ref(t)) for t in things.things)]
        if maker.kind == "asyncio_task":
            watched += [("coroutine", weakref.ref(t.get_coro())) for t in things.things]
        del function, code
        if looked_at:
            census.extend([read(source, maker), read(source, maker, now=1.0)])
        things.let_go()
        del things
        return [what for what, ref in watched if ref() is not None]

    census: list[Population] = []
    gc.collect()
    gc.disable()
    try:
        # The first shows that they die when nobody looks.
        assert alive(looked_at=False) == []
        # What is known of a thing goes with the census after its end.
        assert alive(looked_at=True) == []
    finally:
        gc.enable()
    assert [each.count for each in census] == [3, 3]


def test_reading_keeps_no_locals_of_any_thread(source: Source, maker: Maker) -> None:
    """Frames hold locals: one that is kept keeps a whole request alive."""
    token = Token()
    ref = weakref.ref(token)
    stand = Stand()

    def hold(held: list[Token]) -> None:
        mine = held.pop()  # noqa: F841 - a local is what it is about
        stuck(stand)

    held = [token]
    del token
    thread = threading.Thread(target=hold, args=(held,), name="leak-0")
    gc.collect()
    gc.disable()
    try:
        thread.start()
        stand.arrived()
        read(source, maker)
        stand.release()
        thread.join(20)
        assert ref() is None
    finally:
        gc.enable()


def test_a_population_holds_words_and_numbers_only(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(2)

    def leaves(value: object) -> Iterator[type]:
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from leaves(getattr(value, field.name))
        elif isinstance(value, tuple):
            for each in value:
                yield from leaves(each)
        else:
            yield type(value)

    assert set(leaves(read(source, maker))) <= {str, int, float, bool, type(None)}


def test_what_is_ignored_by_name_is_hidden_and_counted(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(12)
    ignore = maker.by_name("leak-1*")
    found = read(source, maker, ignore)
    assert found.count == 9
    # leak-1, leak-10 and leak-11.
    assert Hidden(str(ignore), 3) in found.hidden


def test_what_is_ignored_by_its_place_is_hidden_and_counted(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    (theirs,) = several(maker, "poll", module="lib.sub")
    (ours,) = several(maker, "serve")
    make(4, theirs)
    make(2, ours)
    module, function = ignore_module("lib.*"), ignore_any_function("app.serve")
    found = read(source, maker, module, function)
    assert (found.count, found.sites, found.site_count) == (0, (), 0)
    assert {Hidden(str(module), 4), Hidden(str(function), 2)} <= set(found.hidden)


def test_serial_numbers_are_never_given_twice(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    serials = []
    for _ in range(20):
        things = make(2)
        serials += [site.sample and site.sample.serial for site in read(source, maker).sites]
        things.let_go()
    # Each look samples the older one of two.
    assert serials == sorted(set(serials), key=lambda serial: serial or 0)
    assert len(serials) == 20


def test_an_age_is_counted_from_the_first_look_and_grows(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    old = make(2)
    ages = [read(source, maker, now=now).sites[0].age_s for now in (100.0, 107.0, 130.0)]
    make(2)
    ages.append(read(source, maker, now=140.0).sites[0].age_s)
    old.let_go()
    ages.append(read(source, maker, now=150.0).sites[0].age_s)
    assert ages == [0.0, 7.0, 30.0, 40.0, 10.0]


def test_the_oldest_object_of_a_site_is_the_one_that_is_shown(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(1)
    first = read(source, maker, now=1.0).sites[0].sample
    make(5)
    later = read(source, maker, now=9.0).sites[0].sample
    assert first is not None
    assert later == dataclasses.replace(first, age_s=8.0)


def test_what_became_of_the_objects_of_a_site_is_reported(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    old = make(20)
    make(30)
    for now in (0.0, 60.0, 100.0):
        read(source, maker, now=now)
    old.let_go()
    followed = [read(source, maker, now=now).sites[0].followed for now in (150.0, 160.0)]
    told = [each and tuple(map(len, dataclasses.astuple(each))) for each in followed]
    assert told == [(30, 20, 0), (30, 0, 0)]
    assert followed[0] is not None
    assert {*followed[0].ages_s, *followed[0].ended_s} <= {150.0, 90.0}


def test_a_bounded_number_of_objects_is_followed_and_the_same_ones_again(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(FOLLOWED_OF_SITE + 40)
    for now in (0.0, 10.0, 20.0):
        found = read(source, maker, now=now).sites[0]
    make(10)
    again = read(source, maker, now=30.0).sites[0]
    assert (found.followed, again.followed) == (
        Followed((20.0,) * FOLLOWED_OF_SITE),
        Followed((30.0,) * FOLLOWED_OF_SITE),
    )


def test_a_closed_source_follows_nothing(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    things = make(40)
    read(source, maker, now=0.0)
    source.close()
    source.open()
    things.let_go()
    make(40)
    (site,) = read(source, maker, now=10.0).sites
    assert site.followed is not None
    assert (set(site.followed.ages_s), site.followed.ended_s) == ({0.0}, ())


def test_only_the_largest_sites_are_sampled(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    for count, target in enumerate(several(maker, "a", "b", "c", "d"), 1):
        make(count, target)
    found = read(source, maker, max_sites=2)
    assert [(site.function, site.count, site.sample is None) for site in found.sites] == [
        ("app.d", 4, False),
        ("app.c", 3, False),
        ("app.b", 2, True),
        ("app.a", 1, True),
    ]


def test_a_site_that_is_asked_for_is_sampled_besides_the_largest(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    for count, target in enumerate(several(maker, "a", "b", "c"), 1):
        make(count, target)
    asked = read(source, maker).sites[2].fingerprint
    found = read(source, maker, max_sites=1, sampled={asked})
    assert [(site.function, site.sample is None) for site in found.sites] == [
        ("app.c", False),
        ("app.b", True),
        ("app.a", False),
    ]


def test_a_pause_that_raises_ends_the_look_and_the_next_one_is_whole(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(3)

    def stop() -> None:
        raise CensusEnded

    with pytest.raises(CensusEnded):
        read(source, maker, pause=stop)
    assert read(source, maker).count == 3


def test_the_application_runs_in_the_pauses(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(3)
    paused: list[int] = []
    read(source, maker, pause=lambda: paused.append(1))
    assert paused


def test_a_closed_source_has_forgotten_what_it_knew(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(2)
    read(source, maker, now=1.0)
    source.close()
    source.open()
    assert [site.age_s for site in read(source, maker, now=9.0).sites] == [0.0]


def test_a_source_can_be_closed_and_opened_any_number_of_times(
    source: Source, maker: Maker
) -> None:
    for _ in range(3):
        source.close()
        source.close()
        source.open()
    assert read(source, maker).count == 0


def test_a_source_says_its_kind(source: Source) -> None:
    assert source.read(Look(0.0, look().ignores, 1, lambda: None)).kind == source.kind


def test_two_sources_of_a_kind_see_the_same(
    source: Source, maker: Maker, make: Callable[..., Things]
) -> None:
    make(6)
    other = type(source)()
    other.open()
    try:
        assert read(other, maker) == read(source, maker)
    finally:
        other.close()


def test_the_forever_of_the_helpers_waits(maker: Maker) -> None:
    """The helpers' own coroutine must not end: tests elsewhere stand on it."""
    with stopped_loop() as loop:
        task = loop.create_task(forever())
        loop.run_until_complete(settle())
        assert not task.done()
