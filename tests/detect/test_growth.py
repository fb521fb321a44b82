from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_leaks.detect import series as series_module
from otel_leaks.detect.growth import OPENS, Growth
from otel_leaks.detect.series import DAY, MAX_SERIES, SLOW
from otel_leaks.model import (
    Census,
    Ended,
    Failure,
    Finding,
    Followed,
    Frame,
    Kind,
    Operation,
    Origin,
    Pool,
    Population,
    Sample,
    Site,
    fingerprint,
)

WINDOW_S = 10.0
WINDOWS = 4
LEAST = 20


def growth(**options: Any) -> Growth:
    return Growth(
        **{"window_s": WINDOW_S, "windows": WINDOWS, "floor": LEAST, "max_sites": 3, **options}
    )


def site(
    count: int,
    name: str = "run",
    *inner: str,
    stayed: int | None = None,
    ended: int = 0,
    moved: int = 0,
    kind: Kind = "asyncio_task",
) -> Site:
    """Return a site; all of its things have stayed unless *stayed* says how many."""
    functions = (f"app.{name}", *inner)
    stayed = min(count if stayed is None else stayed, 256)
    return Site(
        kind,
        functions,
        count,
        fingerprint(kind, functions),
        age_s=99.0,
        followed=Followed(
            (99.0,) * stayed + (0.0,) * (min(count, 256) - stayed), (99.0,) * ended, (99.0,) * moved
        ),
    )


def census(now: float, *sites: Site, site_count: int | None = None) -> Census:
    kinds: dict[Kind, list[Site]] = {"thread": [], "asyncio_task": []}
    for each in sites:
        kinds[each.kind].append(each)
    return Census(
        now,
        tuple(
            Population(
                kind,
                sum(each.count for each in some),
                tuple(some),
                len(some) if site_count is None else site_count,
            )
            for kind, some in kinds.items()
        ),
    )


Sites = Sequence[Site]


def fed(
    policy: Growth, windows: Sequence[Sites], *, since: float = 0.0, looks: int = 5
) -> Iterator[tuple[Finding, ...]]:
    """Enter some censuses for each window; yield what the first after each window finds."""
    now = since
    for i, sites in enumerate([*windows, windows[-1]]):
        for _ in range(looks if i < len(windows) else 1):
            found = policy.look(census(now, *sites))
            now += WINDOW_S / looks
            if i and _ == 0:
                yield found


def opens(
    windows: Sequence[Sites], policy: Growth | None = None, **options: Any
) -> list[str | None]:
    """Return the functions that are open in the end."""
    last: tuple[Finding, ...] = ()
    for found in fed(policy or growth(), windows, **options):
        last = found
    return [each.sites[0].function if each.sites else None for each in last]


def rising(count: int = WINDOWS, step: int = 10, first: int = 0, **options: Any) -> list[Sites]:
    return [[site(first + step * i, **options)] for i in range(1, count + 1)]


def test_it_can_open_for_every_kind_that_is_counted() -> None:
    counted: tuple[Kind, ...] = ("thread", "asyncio_task")
    assert tuple((kind, "growth") for kind in counted) == OPENS
    for kind in counted:
        assert opens(rising(kind=kind)) == ["app.run"]


# What rises


def test_a_floor_that_rises_in_every_window_is_found_after_the_last_of_them() -> None:
    found = [len(each) for each in fed(growth(), rising(WINDOWS + 1))]
    assert found == [0] * (WINDOWS - 1) + [1, 1]


def test_a_finding_says_by_how_much_and_since_when() -> None:
    *_, (found,) = fed(growth(), rising())
    (expected,) = rising()[-1]
    assert found == Finding(
        kind="asyncio_task",
        evidence="growth",
        count=40,
        fingerprint=expected.fingerprint,
        age_s=99.0,
        sites=(expected,),
        site_count=1,
        grown=30,
        grown_s=40.0,
    )


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        pytest.param((10, 20, 30, 40), True, id="a straight line"),
        pytest.param((10, 17, 24, 30), True, id="as much as the least rise"),
        pytest.param((10, 16, 22, 29), False, id="less than that"),
        pytest.param((300, 310, 320, 330), True, id="a tenth of the first floor"),
        pytest.param((310, 320, 330, 340), False, id="less than a tenth"),
        pytest.param((10, 20, 20, 40), False, id="a step that is none"),
        pytest.param((10, 25, 20, 40), False, id="a step down"),
        pytest.param((1000, 1100, 1200, 1220), False, id="a last step of less than half"),
        pytest.param((1000, 1100, 1160, 1200), False, id="a warm-up, ever slower"),
        pytest.param((100, 103, 114, 122), True, id="a leak that drips unevenly"),
        pytest.param((10, 20, 40, 80), True, id="ever faster"),
        pytest.param((40, 40, 40, 40), False, id="a plateau"),
    ],
)
def test_what_counts_as_a_rise(counts: Sequence[int], found: bool) -> None:
    assert bool(opens([[site(count)] for count in counts])) is found


def test_the_floor_of_a_window_counts_and_not_its_top() -> None:
    policy, now = growth(), 0.0
    found: tuple[Finding, ...] = ()
    for floor in (10, 20, 30, 40, 50):
        for height in (0, 500, 900, 200, 0):
            found = policy.look(census(now, site(floor + height, stayed=floor)))
            now += 2.0
    assert [each.count for each in found] == [50]


def test_a_rise_that_flattens_is_a_warm_up_also_beside_the_windows_before() -> None:
    # The last four rise evenly, but at a quarter of the pace of those before.
    fast = [[site(count)] for count in (1, 40, 80, 120)]
    slow = [[site(count)] for count in (130, 140, 150, 160)]
    # The first row opens; a history that begins one window later is of the second alone.
    assert [opens(fast[1:] + slow, growth(windows=4)), opens(slow)] == [[], ["app.run"]]


def test_a_floor_that_was_higher_within_a_day_does_not_count() -> None:
    hours = [[[site(500, stayed=0)]] * SLOW, [[site(10)]] * SLOW * 2]
    before = [window for hour in hours for window in hour]
    long_ago = [*before, *[[site(10)]] * SLOW * DAY]
    assert opens([*before, *rising(first=10)]) == []
    assert opens([*long_ago, *rising(first=10)]) == ["app.run"]


def test_what_rises_in_hours_is_found_by_the_slow_windows() -> None:
    # One more in each hour's first window, too few for any four windows.
    hours = [[[site(10 + 8 * hour)]] * SLOW for hour in range(WINDOWS)]
    windows = [window for hour in hours for window in hour]
    assert opens(windows) == ["app.run"]
    assert opens(windows[:-1]) == []


# What stays


def test_what_comes_and_goes_is_no_leak_however_it_rises() -> None:
    assert opens([[site(10 * i, stayed=0)] for i in range(1, 5)]) == []


def test_a_few_that_stay_among_ever_more_that_go_are_no_leak() -> None:
    assert opens([[site(30 + 10 * i, stayed=30)] for i in range(1, 5)]) == []


def test_what_is_there_from_the_start_has_not_come_to_stay() -> None:
    """It is young in the first window, as is all of a new process."""
    windows = [[site(30 + 10 * i, stayed=30 if i > 1 else 0)] for i in range(1, 5)]
    assert opens(windows) == []


def test_where_all_that_are_followed_have_stayed_no_more_can_be_seen_to_stay() -> None:
    assert opens([[site(1000 + 100 * i)] for i in range(1, 5)]) == ["app.run"]


@pytest.mark.parametrize(("ended", "found"), [(0, ["app.run"]), (1, [])])
def test_one_that_ends_of_a_few_is_enough(ended: int, found: list[str]) -> None:
    windows = rising()
    windows[2] = [site(30, ended=ended)]
    assert opens(windows) == found


def test_a_few_of_very_many_may_end() -> None:
    windows = rising(step=100, first=900)
    windows[2] = [site(1200, ended=1)]
    assert opens(windows) == ["app.run"]


def test_what_moves_on_is_judged_by_its_function_and_not_by_its_site() -> None:
    windows = [
        [site(5 * i, "run", "at_a", moved=2), site(5 * i, "run", "at_b", moved=2)]
        for i in range(1, 5)
    ]
    *_, (found,) = fed(growth(), windows)
    assert (found.fingerprint, found.count, found.site_count, found.sites) == (
        fingerprint("asyncio_task", ("app.run",)),
        40,
        2,
        tuple(windows[-1]),
    )


def test_workers_that_move_between_sites_are_no_leak() -> None:
    windows = [
        [site(10 * i, "work", "busy", moved=1), site(100 - 10 * i, "work", "idle", moved=3)]
        for i in range(1, 5)
    ]
    assert opens(windows) == []


def test_a_leak_whose_site_changes_its_name_is_found_by_its_function() -> None:
    windows = [[site(10 * i, "run", f"at_{i}")] for i in range(1, 5)]
    assert opens(windows) == ["app.run"]


def test_two_sites_of_one_function_are_two_leaks_and_their_function_is_none_besides() -> None:
    windows = [[site(10 * i, "run", "a"), site(30 * i, "run", "b")] for i in range(1, 5)]
    *_, found = fed(growth(), windows)
    assert [each.fingerprint for each in found] == [each.fingerprint for each in windows[-1]]


def test_sites_that_differ_in_where_they_were_created_are_one() -> None:
    """Their fingerprints are the same, and so is their leak."""
    windows = [[site(5 * i), site(6 * i)] for i in range(1, 5)]
    *_, (found,) = fed(growth(), windows)
    assert (found.count, found.site_count) == (44, 2)


# What is missing


def test_a_kind_that_could_not_be_read_is_left_as_it_was() -> None:
    policy, found = growth(), []
    for i, sites in enumerate([*rising(), rising()[-1]]):
        for look in range(5):
            now = i * WINDOW_S + look * 2.0
            found.append(len(policy.look(census(now, *sites))))
            broken = Census(now + 1.0, (), (Failure("asyncio_task", "OSError", ""),))
            assert policy.look(broken) == ()
    assert found[-5:] == [1] * 5


def test_a_site_that_a_census_does_not_name_is_unknown_and_not_zero() -> None:
    policy = growth()
    now = 0.0
    for sites in rising():
        for look in range(5):
            # Named in every other census only.
            named = [*sites] if look % 2 == 0 else [site(900, "other", stayed=0)]
            policy.look(census(now, *named, site_count=5000))
            now += 2.0
    assert [each.count for each in policy.look(census(now, *rising()[-1], site_count=5000))] == [40]


def test_a_window_of_which_nothing_is_known_begins_the_row_anew() -> None:
    windows = rising(6)
    policy = growth()
    now = 0.0
    found = []
    for i, sites in enumerate([*windows, windows[-1]]):
        for _ in range(5):
            named = [] if i == 2 else sites
            found.append(bool(policy.look(census(now, *named, site_count=5000))))
            now += 2.0
    assert not any(found)


def test_where_censuses_are_few_windows_are_longer() -> None:
    policy = growth()
    found = [len(policy.look(census(8.0 * i, site(1 + 5 * i)))) for i in range(4 * 3 + 1)]
    assert found == [0] * 12 + [1]


def test_a_suspended_process_goes_on_where_it_was() -> None:
    policy = growth()
    windows = rising(8)
    before = list(fed(policy, windows[:2]))
    after = list(fed(policy, windows[2:], since=10_000.0))
    assert not any(before)
    assert [len(each) for each in after] == [0, 0, 0, 1, 1, 1]


# How it ends


def fixed(rest: int, stayed: int | None = None) -> list[list[Any]]:
    policy = growth()
    list(fed(policy, rising(step=30)))
    left = [[site(rest, stayed=rest if stayed is None else stayed)]] * 3
    return [[each.count for each in found] for found in fed(policy, left, since=100.0)]


def test_it_is_open_until_half_of_what_had_piled_up_is_gone() -> None:
    assert fixed(20) == [[20], [], []]


def after_windows(*last: Site, site_count: int | None = None) -> tuple[Finding, ...]:
    """Enter windows that rise, and then one census, which ends the last of them."""
    policy = growth()
    found = []
    for i, (counted,) in enumerate(rising()):
        found += [policy.look(census(WINDOW_S * (i + n / 5), counted)) for n in range(5)]
    assert not any(found)
    return policy.look(census(WINDOW_S * WINDOWS, *last, site_count=site_count))


def test_what_is_gone_when_its_last_window_ends_does_not_open() -> None:
    assert len(after_windows(site(10 * WINDOWS))) == 1
    assert after_windows(site(10)) == ()
    assert after_windows() == ()


def test_what_a_census_does_not_name_when_its_last_window_ends_opens() -> None:
    (found,) = after_windows(site_count=1)
    assert found.fingerprint == fingerprint("asyncio_task", ("app.run",))


def test_it_stays_open_while_most_of_those_that_stayed_are_there() -> None:
    assert fixed(90) == [[90]] * 3
    # The count is down because there is less traffic at the same site.
    assert fixed(70, stayed=70) == [[70]] * 3


def test_a_site_that_is_gone_is_named_until_it_has_ended() -> None:
    policy = growth()
    list(fed(policy, rising()))
    found = policy.look(census(50.0))
    assert [(each.count, each.sites[0].function) for each in found] == [(0, "app.run")]


def test_what_is_all_gone_has_ended_before_its_window_has() -> None:
    policy = growth()
    list(fed(policy, rising()))
    (found,) = policy.look(census(42.0))
    assert (found.count, found.grown, found.ended) == (0, 0, "ended")


def test_by_night_there_may_be_no_more_than_when_the_rise_began() -> None:
    policy = growth()
    windows = rising(first=50)
    windows[-1] = [site(90, stayed=80)]
    list(fed(policy, windows))
    (found,) = policy.look(census(42.0, site(55, stayed=55)))
    assert (found.count, found.grown, found.ended) == (55, 0, None)


def test_a_leak_that_stops_is_open_for_a_day() -> None:
    policy = growth()
    stopped = [*rising(), *[[site(40)]] * (SLOW * DAY + 2)]
    found = [[finding.ended for finding in each] for each in fed(policy, stopped)]
    assert found == [[]] * 3 + [[None]] * (SLOW * DAY) + [["steady"], [], []]


def test_a_leak_that_goes_on_is_one_finding() -> None:
    found = [len(each) for each in fed(growth(), rising(SLOW * DAY * 2))]
    assert found == [0] * 3 + [1] * (SLOW * DAY * 2 - 3)


# What it costs


def test_a_site_that_is_gone_for_a_window_is_forgotten() -> None:
    policy = growth()
    list(fed(policy, [[site(5, f"f{i}")] for i in range(50)]))
    history = policy._kinds["asyncio_task"]
    assert len(history.sites) <= 3
    assert len(history.functions) <= 3


def test_however_many_sites_come_and_go_a_leak_is_not_driven_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(series_module, "MAX_SERIES", 20)
    policy, most = growth(), 0
    number = 0
    now = 0.0
    for i in range(1, 7):
        for _ in range(5):
            crowd = []
            for _ in range(15):
                number += 1
                crowd.append(site(1000, f"short_{number}", stayed=0))
            found = policy.look(census(now, site(10 * i), *crowd))
            most = max(most, *(len(each.sites) for each in policy._kinds.values()))
            now += 2.0
    assert [each.sites[0].function for each in found] == ["app.run"]
    assert most <= 20


def test_the_history_of_very_many_sites_is_bounded_in_memory() -> None:
    policy = growth()
    for i in range(200):
        policy.look(census(float(i), *(site(3, f"f{i}_{n}") for n in range(100))))
    history = policy._kinds["asyncio_task"]
    assert max(len(history.sites), len(history.functions)) <= MAX_SERIES
    series = next(iter(history.sites.values()))
    assert not hasattr(series, "__dict__")
    list(fed(policy, [[site(3, "for_ever")]] * SLOW * DAY * 2, since=1000.0))
    kept, quick = history.sites[site(3, "for_ever").fingerprint].tracks
    assert quick is None
    assert kept is not None
    assert (len(kept.windows), len(kept.day), len(kept.peaks)) == (2 * WINDOWS, DAY, DAY)
    assert sum(map(sys.getsizeof, (*kept.windows, *kept.day))) < 8000


def test_what_is_remembered_of_quick_windows_is_bounded_too() -> None:
    policy = growth()
    for i in range(400):
        policy.look(census(i / 2, site(300, "for_ever")))
    _, quick = policy._kinds["asyncio_task"].sites[site(300, "for_ever").fingerprint].tracks
    assert quick is not None
    kept = (len(quick.windows), len(quick.day), len(quick.peaks))
    assert kept == (2 * WINDOWS, 2 * WINDOWS, 2 * WINDOWS)


def test_sites_that_may_be_growing_are_asked_for() -> None:
    policy = growth()
    windows: list[Sites] = [
        [site(10 * i, "leak"), site(500, "pool"), site(200 + 50 * i, "traffic", stayed=0)]
        for i in range(1, 4)
    ]
    list(fed(policy, windows))
    leak, _, traffic = windows[-1]
    assert leak.fingerprint in policy.suspects()
    assert traffic.fingerprint not in policy.suspects()
    assert len(growth(max_sites=1).suspects()) == 0


# Pools


def pooled(workers: int, pools: int, *, idle: int = 0, name: str = "export") -> list[Site]:
    """Return where the workers of some pools of one name stand; all pools have stayed."""
    sites = []
    for count, functions, is_idle in (
        (workers - idle, ("app.job",), False),
        (idle, (f"pool {name}",), True),
    ):
        if count:
            followed = Followed((99.0,) * (pools * count // workers))
            mark = fingerprint("thread", functions)
            sites.append(
                Site("thread", functions, count, mark, followed=followed, pool=name, idle=is_idle)
            )
    return sorted(sites, key=lambda each: -each.count)


def found_of_pools(windows: Sequence[tuple[list[Site], int]]) -> list[Finding]:
    policy, now = growth(), 0.0
    found: tuple[Finding, ...] = ()
    for sites, pools in [*windows, windows[-1]]:
        for _ in range(5):
            lives = tuple(Pool(i, "export", (), 1, 0) for i in range(pools))
            found = policy.look(replace(census(now, *sites), pools=lives))
            now += 2.0
    return list(found)


def test_a_pool_that_fills_up_is_no_growth() -> None:
    assert found_of_pools([(pooled(30 * i, 1), 1) for i in range(1, 5)]) == []
    assert found_of_pools([(pooled(30 * i, 1, idle=20 * i), 1) for i in range(1, 5)]) == []


def test_ever_more_pools_are_growth_wherever_their_workers_stand() -> None:
    windows = [(pooled(20 * i, 10 * i, idle=16 * i), 10 * i) for i in range(1, 5)]
    (found,) = found_of_pools(windows)
    assert (found.count, found.pools, found.grown) == (80, 40, 30)
    assert found.fingerprint == fingerprint("thread", ("pool export",))
    assert found.sites == tuple(windows[-1][0])


def test_pools_that_are_in_use_do_not_count() -> None:
    def found_where(in_use: Callable[[int], bool]) -> list[Finding]:
        policy = growth()
        found: tuple[Finding, ...] = ()
        for i in range(5 * WINDOWS + 1):
            pools = tuple(
                Pool(n, "export", (n,), 1, 0, is_in_use=in_use(n)) for n in range(4 * (i + 1))
            )
            left = sum(not pool.is_in_use for pool in pools)
            at = replace(
                site(len(pools), kind="thread"),
                pool="export",
                serving=len(pools) - left,
                followed=Followed((99.0,) * left),
            )
            found = policy.look(replace(census(2.0 * i, at), pools=pools))
        return list(found)

    assert found_where(lambda _: True) == []
    (found,) = found_where(lambda n: n % 2 == 0)
    assert (found.count, found.pools) == (42, 42)


def test_jobs_in_pools_are_not_taken_for_threads_of_the_same_function() -> None:
    own = [site(10 * i, "job", kind="thread") for i in range(1, 5)]
    windows = [([*pooled(50, 1), each], 1) for each in own]
    (found,) = found_of_pools(windows)
    assert (found.count, found.pools) == (40, None)


def test_a_finding_shows_what_came_last_and_who_created_it() -> None:
    stack = (Frame("app.run", "/srv/app.py", 5),)
    newest = Sample(9, stack, "new", 1.0, origin=Origin("app.new", "/srv/app.py", 1))
    oldest = Sample(1, stack, "old", 9.0)
    shown = [
        replace(each, sample=oldest, newest=newest, origin=Origin("app.old", "/srv/app.py", 2))
        for (each,) in rising()
    ]
    *_, (found,) = fed(growth(), [[each] for each in shown])
    (site_found,) = found.sites
    assert (site_found.sample, site_found.origin) == (newest, newest.origin)


def test_the_site_that_grew_comes_first_and_not_a_larger_one_of_the_same_stack() -> None:
    old = Followed((999.0,) * 200)
    windows = [
        [
            replace(site(200), origin=Origin("app.serve", "/srv/app.py", 1), followed=old),
            replace(
                site(10 * i),
                origin=Origin("app.export", "/srv/app.py", 2),
                followed=Followed((30.0,) * 10 * i),
            ),
        ]
        for i in range(1, 5)
    ]
    *_, (found,) = fed(growth(), windows)
    assert found.sites == tuple(reversed(windows[-1]))


# Requests in progress


def test_requests_in_progress_do_not_count() -> None:
    windows = [[replace(site(10 * i), serving=10 * i)] for i in range(1, 5)]
    assert opens(windows) == []
    windows = [[replace(site(100 * i), serving=90 * i)] for i in range(1, 5)]
    *_, (found,) = fed(growth(), windows)
    assert found.count == 40


def left_by(requests: Sequence[int], *, ended: int = 10) -> list[Finding]:
    """Enter ten more tasks a window, and how many requests had ended by then."""
    policy = growth()
    found: tuple[Finding, ...] = ()
    for i in range(len(requests)):
        looked = site(2 * (i + 1))
        left = replace(
            looked,
            operations=(Operation(1, 1, name="POST /mcp"), Operation(2, 2, name="of before")),
            ended=Ended(20, (9.0,) * ended),
        )
        counts = (("POST /mcp", requests[i]), ("GET /", 5 * i))
        found = policy.look(replace(census(2.0 * i, left), requests=counts))
    return list(found)


def test_sessions_of_which_each_makes_ever_more_requests_are_none() -> None:
    requests = [i * i for i in range(5 * WINDOWS + 1)]
    assert left_by(requests) == []
    # Most of them are of no request.
    assert len(left_by(requests, ended=9)) == 1


@pytest.mark.parametrize("windows", range(WINDOWS, 20))
def test_sessions_that_come_evenly_and_each_go_on_asking_are_none(windows: int) -> None:
    """Each makes some requests as it comes: a row alone does not show that fewer are the first."""
    assert left_by([4 * i + i * i for i in range(5 * windows + 1)]) == []


def test_what_each_request_leaves_behind_is_growth() -> None:
    assert len(left_by([40 * i for i in range(5 * WINDOWS + 1)])) == 1
    assert len(left_by([0] * (5 * WINDOWS + 1))) == 1


# What is replaced as it ends


def renewing(policy: Growth, counts: Sequence[int], ended: Callable[[int, int], int]) -> list[str]:
    """Enter counts of things none of which stays; *ended* of them have gone since the last one."""
    found: tuple[Finding, ...] = ()
    for i, count in enumerate(counts):
        found = policy.look(census(2.0 * i, site(count, stayed=0, ended=ended(i, count))))
    return [each.sites[0].function for each in found]


def test_what_makes_its_own_successor_is_growth() -> None:
    counts = [10 + 2 * i for i in range(5 * WINDOWS + 1)]
    assert renewing(growth(), counts, lambda _, count: count // 4) == ["app.run"]


def test_traffic_that_rises_as_much_is_none() -> None:
    wavers = [10 + 2 * i + (4 if i % 2 else 0) for i in range(5 * WINDOWS + 1)]
    assert renewing(growth(), wavers, lambda _, count: count // 4) == []


def test_ever_larger_batches_are_none() -> None:
    counts = [10 + 2 * i for i in range(5 * WINDOWS + 1)]
    assert renewing(growth(), counts, lambda _, count: count) == []
    assert renewing(growth(), counts, lambda i, count: 0 if i % 4 else count) == []


# The first word


def quickly(
    kind: Kind, step: int, *, ended: int = 0, seconds: int = WINDOWS * 3 + 1
) -> float | None:
    """Return the seconds until something is found where *step* more come in each of them."""
    policy = growth()
    for i in range(seconds):
        sites = [site(step * (i + 1), kind=kind, ended=ended if i == 5 else 0)]
        if policy.look(census(float(i), *sites)):
            return float(i)
    return None


@pytest.mark.parametrize(
    ("kind", "step", "found_s"),
    [
        ("asyncio_task", 300, 12.0),
        ("asyncio_task", 150, None),
        ("thread", 6, 12.0),
        ("thread", 3, None),
    ],
)
def test_what_rises_steeply_is_found_in_a_row_of_quick_windows(
    kind: Kind, step: int, found_s: float | None
) -> None:
    # Three censuses are the shortest window.
    assert quickly(kind, step) == found_s


def test_one_that_ends_is_enough_there() -> None:
    assert quickly("asyncio_task", 300, ended=1) is None


def test_what_is_found_there_ends_there() -> None:
    policy, found = growth(), []
    for i in range(40):
        sites = [site(300 * (i + 1))] if i < 14 else [site(20)]
        found.append([each.ended for each in policy.look(census(float(i), *sites))])
    assert found == [[]] * 12 + [[None]] * 6 + [["ended"]] + [[]] * 21


# What holds for any load

Loads = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 300)), min_size=1, max_size=80)


@settings(max_examples=200)
@given(Loads)
def test_nothing_opens_where_nothing_stays(load: list[tuple[int, int]]) -> None:
    policy = growth()
    for i, (_, count) in enumerate(load):
        sites = [site(count, stayed=0)] if count else []
        assert policy.look(census(2.0 * i, *sites)) == ()


@settings(max_examples=200)
@given(Loads)
def test_nothing_opens_that_does_not_grow(load: list[tuple[int, int]]) -> None:
    policy = growth()
    for i, (extra, _) in enumerate(load):
        # Never more than at first, whatever comes and goes below.
        assert policy.look(census(2.0 * i, site(100 - extra))) == ()


@settings(max_examples=100)
@given(st.integers(7, 50), st.lists(st.integers(0, 300), min_size=60, max_size=60))
def test_a_steady_leak_is_found_under_any_traffic_that_has_quiet_moments(
    a_window: int, traffic: list[int]
) -> None:
    policy = growth()
    found: tuple[Finding, ...] = ()
    for i, passing in enumerate(traffic):
        window, look = divmod(i, 5)
        leaked = a_window * (window + 1)
        count = leaked + (0 if look == 2 else passing)
        found = policy.look(census(2.0 * i, site(count, stayed=leaked)))
    assert [each.evidence for each in found] == ["growth"]


def test_the_order_of_the_sites_does_not_matter() -> None:
    def make(i: int) -> list[Site]:
        return [site(10 * i, "a"), site(30 * i, "b")]

    forth = opens([make(i) for i in range(1, 5)])
    back = opens([make(i)[::-1] for i in range(1, 5)])
    assert sorted(map(str, forth)) == sorted(map(str, back)) == ["app.a", "app.b"]
