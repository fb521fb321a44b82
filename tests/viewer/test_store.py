from __future__ import annotations

import random
from dataclasses import replace

import pytest

from otel_leaks.viewer.arrivals import Arrival, Ended, Link, Opened, Process, Read, Sampled, Seen
from otel_leaks.viewer.received import Counted, Counts, Detected, Place, Site
from otel_leaks.viewer.store import Limits, Store

SHOP = Process("shop", "1")
OTHER = Process("shop", "2")


def read(at_s: float, *functions: tuple[str, int], process: Process = SHOP) -> Read:
    count = sum(number for _, number in functions)
    return Read(process, Counts(at_s, (Counted("asyncio_task", count, 50, functions),)))


def opened(
    span: str,
    *,
    at_s: float = 100.0,
    count: int = 60,
    evidence: str = "threshold",
    fingerprint: str = "",
    links: tuple[Link, ...] = (),
    process: Process = SHOP,
    stack: tuple[Place, ...] = (),
) -> Opened:
    site = Site("shop.post", count, 7.0, "a1b2c3d4e5f6", stack)
    return Opened(
        process,
        Link("f" * 32, span),
        at_s,
        age_s=7.0,
        fingerprint=fingerprint,
        pool="",
        operation="",
        refers_to="",
        links=links,
        detected=Detected("asyncio_task", evidence, "a leak", count, 50, (site,), 1),
    )


def ended(
    *, span: str = "e", evidence: str = "threshold", fingerprint: str = "", peak: int = 70
) -> Ended:
    return Ended(
        SHOP,
        Link("e" * 32, span),
        200.0,
        "asyncio_task",
        evidence,
        fingerprint,
        pool="",
        message="over",
        peak=peak,
        duration_s=100.0,
        reason="below",
        links=(),
    )


def seen(trace: str, span: str, *, start_s: float = 1.0) -> Seen:
    return Seen(SHOP, Link(trace, span), "", "POST /orders", start_s, 0.1, is_error=False)


def filled(*arrivals: Arrival, limits: Limits | None = None) -> Store:
    store = Store(limits, clock=lambda: 5.0)
    for each in arrivals:
        store.take(each)
    return store


def numbers(store: Store, change: int = 0) -> list[list[tuple[float, int]]]:
    return [
        [(reading.at_s, reading.kinds["asyncio_task"].count) for reading in each.readings]
        for each in store.since(change).processes
    ]


def test_counts_are_kept_for_each_process_by_function() -> None:
    store = filled(
        read(1.0, ("a", 2), ("b", 1)), read(1.0, ("c", 9), process=OTHER), read(2.0, ("b", 4))
    )
    first, second = sorted(store.since(0).processes, key=lambda each: each.process.instance)
    assert (first.process, first.seen_s, first.names) == (SHOP, 5.0, ("a", "b"))
    assert [
        (each.at_s, each.kinds["asyncio_task"].limit, list(each.kinds["asyncio_task"].functions))
        for each in first.readings
    ] == [(1.0, 50, [0, 2, 1, 1]), (2.0, 50, [1, 4])]
    assert (second.process, second.names) == (OTHER, ("c",))


def test_who_knows_some_gets_what_is_new() -> None:
    store = filled(read(1.0, ("a", 1)))
    known = store.since(0).change
    assert (store.since(known).processes, store.since(known).findings) == ((), ())
    store.take(read(2.0, ("a", 2)))
    (followed,) = store.since(known).processes
    assert ([each.at_s for each in followed.readings], followed.names, followed.is_all) == (
        [2.0],
        None,
        False,
    )


def test_a_long_run_stays_whole_and_loses_detail_where_it_is_old() -> None:
    store = filled(*(read(float(at), ("a", at)) for at in range(1, 10)), limits=Limits(readings=8))
    assert numbers(store) == [[(at, at) for at in (1.0, 3.0, 5.0, 6.0, 7.0, 8.0, 9.0)]]
    # Who follows gets all of them, once.
    (followed,) = store.since(8).processes
    assert followed.is_all
    assert numbers(store, 8) == numbers(store)


def test_a_reading_that_is_sent_again_is_kept_once() -> None:
    assert numbers(filled(read(2.0, ("a", 1)), read(2.0, ("a", 1)), read(1.0, ("a", 3)))) == [
        [(2.0, 1)]
    ]


def test_more_functions_than_a_process_may_name_are_one() -> None:
    store = filled(read(1.0, ("a", 1), ("b", 2), ("c", 3), ("d", 4)), limits=Limits(functions=2))
    (followed,) = store.since(0).processes
    assert followed.names == ("a", "b", "_OTHER")
    assert list(followed.readings[0].kinds["asyncio_task"].functions) == [0, 1, 1, 2, 2, 7]


def test_the_process_that_was_silent_longest_goes_first() -> None:
    third = Process("shop", "3")
    store = filled(
        read(1.0, ("a", 1)),
        read(1.0, ("a", 1), process=OTHER),
        read(2.0, ("a", 2)),
        read(1.0, ("a", 1), process=third),
        limits=Limits(processes=2),
    )
    since = store.since(2)
    assert {each.process for each in since.processes} == {SHOP, third}
    assert len(since.gone_processes) == 1


def test_a_reminder_belongs_to_its_finding_and_an_end_ends_it() -> None:
    store = filled(opened("1" * 16), opened("2" * 16, at_s=160.0, count=65))
    (finding,) = store.since(0).findings
    assert (finding.opened_s, finding.latest.at_s, finding.reports, finding.peak) == (
        100,
        160,
        2,
        65,
    )
    store.take(ended())
    assert finding.ended == ended()
    assert finding.peak == 70
    store.take(opened("3" * 16, at_s=300.0))
    assert [each.opened_s for each in store.since(0).findings] == [100.0, 300.0]


def test_a_span_that_is_sent_again_is_no_reminder() -> None:
    (finding,) = filled(opened("1" * 16), opened("1" * 16)).since(0).findings
    assert finding.reports == 1


def test_a_reminder_is_known_by_its_link_also_where_the_place_moved() -> None:
    first = opened("1" * 16, evidence="growth", fingerprint="aaa")
    unrelated = opened("2" * 16, evidence="growth", fingerprint="bbb")
    moved = opened("3" * 16, evidence="growth", fingerprint="ccc", links=(first.span,))
    store = filled(first, unrelated, moved)
    assert [(each.opened_s, each.latest.fingerprint) for each in store.since(0).findings] == [
        (100.0, "ccc"),
        (100.0, "bbb"),
    ]


SITES = tuple(Site(name, 9, 7.0, f"{name}0", (Place(name, "a.py", 3),)) for name in "ab")
SPAN = opened("1" * 16, links=(Link("a" * 32, "b" * 16),))
RECORD = replace(SPAN, links=(), detected=replace(SPAN.detected, sites=()))
SAMPLES = tuple(Sampled(SHOP, SPAN.span, each) for each in SITES)
WITHOUT_EVENTS = replace(SPAN, detected=RECORD.detected)


@pytest.mark.parametrize(
    "arrivals",
    [(WITHOUT_EVENTS, RECORD, *SAMPLES), (RECORD, *SAMPLES, WITHOUT_EVENTS)],
    ids=["span first", "records first"],
)
def test_samples_that_are_log_records_are_sites_of_their_detection(
    arrivals: tuple[Arrival, ...],
) -> None:
    (finding,) = filled(*arrivals, *arrivals).since(0).findings
    assert (finding.reports, finding.peak) == (1, 60)
    assert finding.whole == replace(SPAN, detected=replace(SPAN.detected, sites=SITES))


@pytest.mark.parametrize("swapped", [False, True], ids=["span first", "records first"])
def test_samples_that_are_both_events_and_log_records_are_shown_once(*, swapped: bool) -> None:
    arrivals: list[Arrival] = [SPAN, RECORD, *SAMPLES]
    (finding,) = filled(*(arrivals[1:] + arrivals[:1] if swapped else arrivals)).since(0).findings
    assert (finding.reports, finding.whole) == (1, SPAN)


def test_log_records_of_a_detection_that_has_ended_open_none() -> None:
    findings = filled(SPAN, ended(), RECORD, *SAMPLES).since(0).findings
    assert [each.ended for each in findings] == [ended()]


def test_the_log_record_of_an_end_does_not_end_what_opened_since() -> None:
    store = filled(SPAN, ended(), opened("2" * 16), ended())
    assert [each.ended for each in store.since(0).findings] == [ended(), None]


def test_detections_in_log_records_alone_are_findings_with_their_sites() -> None:
    none = Link("", "")
    records = [replace(RECORD, span=none, at_s=at, detected=RECORD.detected) for at in (1.0, 2.0)]
    other = replace(records[0], detected=replace(RECORD.detected, kind="thread"))
    samples = [Sampled(SHOP, none, each) for each in SITES]
    store = filled(records[0], samples[0], other, samples[1], records[1], *samples)
    found = [
        (e.latest.detected.kind, e.reports, e.whole.detected.sites) for e in store.since(0).findings
    ]
    assert found == [("asyncio_task", 2, SITES), ("thread", 1, SITES[1:])]


def test_findings_of_two_processes_are_two() -> None:
    store = filled(opened("1" * 16), opened("2" * 16, process=OTHER))
    assert len(store.since(0).findings) == 2


def test_what_has_ended_goes_before_what_is_open() -> None:
    store = filled(
        opened("1" * 16, evidence="growth", fingerprint="a"),
        opened("2" * 16, evidence="growth", fingerprint="b"),
        ended(evidence="growth", fingerprint="b"),
        opened("3" * 16, evidence="growth", fingerprint="c"),
        limits=Limits(findings=2),
    )
    since = store.since(0)
    assert [each.latest.fingerprint for each in since.findings] == ["a", "c"]
    assert len(since.gone_findings) == 1


def test_findings_are_bounded_by_what_they_take() -> None:
    store = filled(
        *(
            opened(f"{n:016x}", evidence="growth", fingerprint=f"{n}", stack=incompressible(n))
            for n in range(20)
        ),
        limits=Limits(finding_bytes=1_000_000),
    )
    kept = store.since(0).findings
    assert 2 <= len(kept) <= 10
    assert sum(len(each.packed) for each in kept) < 1_000_000
    assert kept[-1].latest.fingerprint == "19"


def incompressible(seed: int) -> tuple[Place, ...]:
    chance = random.Random(seed)
    return tuple(Place(chance.randbytes(500).hex(), "", line) for line in range(200))


def test_a_finding_has_all_its_sites_though_it_takes_little() -> None:
    stack = tuple(Place("f" * 1000, "p" * 1000, line) for line in range(200))
    given = opened("1" * 16, stack=stack)
    (finding,) = filled(given).since(0).findings
    assert finding.whole == given
    assert finding.latest.detected.sites[0].stack == ()
    assert finding.size_bytes < 20_000


def test_spans_of_linked_traces_stay_when_others_go() -> None:
    linked, limits = Link("a" * 32, "1" * 16), Limits(spans=4)
    store = filled(seen("a" * 32, "1" * 16), opened("9" * 16, links=(linked,)), limits=limits)
    for number in range(10):
        store.take(seen(f"{number:032x}", "2" * 16))
    store.take(seen("a" * 32, "3" * 16, start_s=0.5))
    assert [each.span.span_id for each in store.trace("a" * 32)] == ["3" * 16, "1" * 16]
    kept = [number for number in range(10) if store.trace(f"{number:032x}")]
    assert kept == [8, 9]


def test_a_trace_is_bounded() -> None:
    store = filled(
        *(seen("a" * 32, f"{number:016x}") for number in range(9)),
        limits=Limits(spans_of_trace=3),
    )
    assert len(store.trace("a" * 32)) == 3


def test_a_count_that_no_array_holds_is_cut() -> None:
    store = filled(read(1.0, ("a", 2**40)))
    (followed,) = store.since(0).processes
    assert list(followed.readings[0].kinds["asyncio_task"].functions) == [0, 2**31 - 1]
