from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from otel_leaks.census import source
from otel_leaks.census.source import MAX_KEPT_SITES, population, share
from otel_leaks.ignores import ignore_module, ignore_thread
from otel_leaks.model import Hidden, Population, Sample, Site
from support.leaks import look


@given(st.integers(0, 10**6), st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_shares_are_whole_add_up_and_miss_the_exact_part_by_less_than_one(
    total: int, weights: list[int]
) -> None:
    shares = share(total, weights)
    assert sum(shares) == total
    assert len(shares) == len(weights)
    whole = sum(weights)
    missed = [abs(part * whole - total * weight) for part, weight in zip(shares, weights)]  # noqa: B905 - 3.10 has strict=, lengths were compared
    assert all(miss < whole for miss in missed)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_weights_that_add_up_are_the_shares(weights: list[int]) -> None:
    assert share(sum(weights), weights) == weights


@given(st.integers(0, 1000), st.lists(st.integers(1, 50), min_size=1, max_size=10), st.data())
def test_a_larger_weight_never_gets_a_smaller_share(
    total: int, weights: list[int], data: st.DataObject
) -> None:
    shares = share(total, weights)
    a = data.draw(st.integers(0, len(weights) - 1))
    b = data.draw(st.integers(0, len(weights) - 1))
    if weights[a] > weights[b]:
        assert shares[a] >= shares[b]


def test_shares_are_those_of_the_largest_remainder() -> None:
    assert share(100, [1, 1, 1]) == [34, 33, 33]
    assert share(10, [5, 3, 2, 1]) == [4, 3, 2, 1]
    assert share(1, [1, 2]) == [0, 1]


def site(name: str, count: int) -> Site:
    return Site("thread", (name,), count, f"{name:0>12}")


def sampled(each: Site) -> Site:
    return dataclasses.replace(each, sample=Sample(1, (), each.function, 0.0))


def test_a_population_has_the_largest_sites_first_and_samples_these() -> None:
    a, b, c = site("a", 2), site("b", 5), site("c", 2)
    pool, lib = ignore_thread("pool-*"), ignore_module("lib.*")
    assert population(
        "thread", [c, a, b], {pool: 3, lib: 1}, sampled, look(max_sites=2)
    ) == Population(
        "thread",
        9,
        (sampled(b), sampled(a), c),
        site_count=3,
        hidden=(Hidden('ignore_thread("pool-*")', 3), Hidden('ignore_module("lib.*")', 1)),
    )


def test_a_population_of_very_many_sites_is_cut_but_counted() -> None:
    sites = [site(f"{i:05}", 1) for i in range(MAX_KEPT_SITES + 5)]
    found = population("thread", sites, {}, sampled, look(max_sites=1))
    assert (found.count, len(found.sites), found.site_count) == (
        MAX_KEPT_SITES + 5,
        MAX_KEPT_SITES,
        MAX_KEPT_SITES + 5,
    )


def test_every_name_that_is_offered_exists() -> None:
    assert [name for name in source.__all__ if not hasattr(source, name)] == []
