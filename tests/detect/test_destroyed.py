from __future__ import annotations

from otel_leaks.detect.destroyed import OPENS, destroyed
from otel_leaks.model import Census, Finding, Population, Site

QUIET_S = 300.0


def site(count: int, quiet_s: float | None, mark: str = "0" * 12) -> Site:
    return Site("destroyed_task", ("app.poll",), count, mark, age_s=500.0, quiet_s=quiet_s)


def ask(*sites: Site, max_sites: int = 10) -> tuple[Finding, ...]:
    population = Population("destroyed_task", sum(each.count for each in sites), sites, len(sites))
    return destroyed(Census(0.0, (population,)), quiet_s=QUIET_S, max_sites=max_sites)


def test_a_single_destroyed_task_is_a_finding() -> None:
    one = site(1, 0.0)
    (found,) = ask(one)
    assert found == Finding(
        "destroyed_task",
        "destroyed",
        1,
        fingerprint="0" * 12,
        age_s=500.0,
        sites=(one,),
        site_count=1,
    )
    assert (found.kind, found.evidence) in OPENS


def test_it_ends_when_none_was_destroyed_for_a_while() -> None:
    assert [len(ask(site(3, quiet_s))) for quiet_s in (299.9, 300.0)] == [1, 0]


def test_of_an_open_one_it_says_that_it_is_quiet() -> None:
    (population,) = [Population("destroyed_task", 3, (site(3, 300.0),), 1)]
    (found,) = destroyed(
        Census(0.0, (population,)), quiet_s=QUIET_S, open_marks={"0" * 12}, max_sites=10
    )
    assert (found.count, found.ended) == (3, "quiet")


def test_each_coroutine_is_a_finding_of_its_own_up_to_the_most() -> None:
    sites = [site(9 - n, 0.0, f"{n:012}") for n in range(5)]
    assert [each.count for each in ask(*sites, max_sites=3)] == [9, 8, 7]


def test_what_tests_note_of_destroyed_tasks_and_no_population_are_no_finding() -> None:
    assert ask(site(1, None)) == ()
    assert destroyed(Census(0.0), quiet_s=QUIET_S, max_sites=10) == ()
