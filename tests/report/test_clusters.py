"""Which sites are one leak."""

from __future__ import annotations

import pytest

from otel_leaks.model import Frame, Kind, Origin, Site
from otel_leaks.report.clusters import Cluster, clusters, owner_of

OWN = "/srv/tests/test_jobs.py"
INSTALLED = "/x/site-packages/"


def through(function: str, line: int = 3, *, scope: str = "test_a", own: str = "a.test") -> Origin:
    """Return the origin of what *function* of a library created for a line of the application."""
    library = Frame(function, f"{INSTALLED}{function.partition('.')[0]}.py", 7)
    return Origin(own, OWN, line, scope, library=library)


def of_library(function: str, *, scope: str = "test_a") -> Origin:
    return Origin(function, f"{INSTALLED}{function.partition('.')[0]}.py", 7, scope)


def site(kind: Kind, function: str, origin: Origin | None, count: int = 1) -> Site:
    return Site(kind, (function,), count, function[:12], origin=origin)


def told(*sites: Site) -> list[tuple[str, list[str]]]:
    return [(each.owner, [s.function for s in each.sites]) for each in clusters(sites)]


def test_what_a_library_created_for_one_line_is_one_leak() -> None:
    assert told(
        site("thread", "client.loop", through("client.Client.open")),
        site("asyncio_task", "mine.work", Origin("a.test", OWN, 3, "test_a")),
        site("event_loop", "asyncio.Loop", through("looplib.make")),
        site("asyncio_task", "client.ping", through("client.Client.ping")),
    ) == [
        ("client", ["client.loop", "asyncio.Loop", "client.ping"]),
        ("", ["mine.work"]),
    ]


@pytest.mark.parametrize(
    "other",
    [
        through("client.Client.open", 4),
        through("client.Client.open", scope="test_b"),
        through("client.Client.open", own="a.other"),
    ],
    ids=["line", "test", "function"],
)
def test_what_another_line_led_to_is_another_leak(other: Origin) -> None:
    first = site("thread", "client.loop", through("client.Client.open"))
    assert told(first, site("thread", "client.ping", other)) == [
        ("", ["client.loop"]),
        ("", ["client.ping"]),
    ]


def test_what_the_application_created_itself_stays_apart_though_it_is_of_one_line() -> None:
    origin = Origin("a.test", OWN, 3, "test_a")
    assert told(site("asyncio_task", "a", origin), site("asyncio_task", "b", origin)) == [
        ("", ["a"]),
        ("", ["b"]),
    ]


def test_what_nobody_is_known_to_have_asked_for_belongs_to_the_only_line_of_its_library() -> None:
    opened = site("thread", "client.loop", through("client.Client.open"))
    called_back = site("asyncio_task", "client.ping", of_library("client.Client.pong"))
    assert told(called_back, opened) == [("client", ["client.ping", "client.loop"])]
    again = site("thread", "client.loop", through("client.Client.open", 9))
    assert told(called_back, opened, again) == [
        ("", ["client.ping"]),
        ("", ["client.loop"]),
        ("", ["client.loop"]),
    ]


def test_what_nobody_is_known_to_have_asked_for_is_one_leak_of_its_library_in_a_test() -> None:
    assert told(
        site("asyncio_task", "client.ping", of_library("client.Client.pong")),
        site("asyncio_task", "other.ping", of_library("other.pong")),
        site("asyncio_task", "client.read", of_library("client.read")),
        site("asyncio_task", "client.read", of_library("client.read", scope="test_b")),
    ) == [
        ("client", ["client.ping", "client.read"]),
        ("", ["other.ping"]),
        ("", ["client.read"]),
    ]


def test_what_was_not_noted_stays_apart() -> None:
    assert told(site("thread", "a", None), site("thread", "b", None)) == [("", ["a"]), ("", ["b"])]


def test_a_leak_says_how_many_of_each_kind_and_where_the_application_asked_for_it() -> None:
    (found,) = clusters(
        [
            site("asyncio_task", "client.ping", of_library("client.Client.pong"), 2),
            site("thread", "client.loop", through("client.Client.open")),
            site("asyncio_task", "client.read", through("client.Client.open"), 3),
        ]
    )
    assert found.counts() == {"asyncio_task": 5, "thread": 1}
    assert found.origin == through("client.Client.open")


def test_a_leak_keeps_the_process_where_one_of_its_sites_does() -> None:
    sites = [Site("thread", ("a",), 1, "0", daemon=daemon) for daemon in (True, False)]
    assert [Cluster(tuple(sites[:most]), "x").keeps_process for most in (1, 2)] == [False, True]


@pytest.mark.parametrize(
    ("function", "owner"),
    [
        ("distributed.client.Client.start", "distributed"),
        ("six", "six"),
        ("multiprocessing.pool.Pool.__init__", "multiprocessing.pool.Pool"),
        ("logging.config.listen.<locals>.Server.run", "logging.config"),
        ("threading", "threading"),
    ],
)
def test_an_owner_is_a_package_or_a_class_of_pythons(function: str, owner: str) -> None:
    assert owner_of(function) == owner
