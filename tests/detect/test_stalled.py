from __future__ import annotations

from dataclasses import replace

from otel_leaks.config import LeakConfig
from otel_leaks.detect.stalled import POLICY, QUIET_S, stalled
from otel_leaks.model import (
    Census,
    Detection,
    Finding,
    Frame,
    Loops,
    Operation,
    Site,
    Stall,
    StallCause,
    fingerprint,
)
from otel_leaks.monitor.ledger import Ledger


def stall(
    function: str = "app.build",
    *,
    longest_s: float = 1.4,
    quiet_s: float = 0.0,
    count: int = 1,
    cause: StallCause | None = "computes",
) -> Stall:
    mark = fingerprint("event_loop", (function,))
    return Stall(
        Site("event_loop", (function,), count, mark, operations=(Operation(1, 2, name="GET /x"),)),
        at=Frame(function, "app.py", 7),
        task="app.handle",
        longest_s=longest_s,
        quiet_s=quiet_s,
        cause=cause,
    )


def census(*stalls: Stall, at: float = 0.0) -> Census:
    return Census(at, loops=Loops(0.0, 0.0, 0.0, stalls))


def found(*stalls: Stall, opened: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    return stalled(census(*stalls), open_marks=opened, max_sites=10)


def test_one_stall_is_a_finding_with_its_site() -> None:
    one = stall()
    assert found(one) == (
        Finding(
            kind="event_loop",
            evidence="stalled",
            count=1,
            fingerprint=one.site.fingerprint,
            age_s=1.4,
            sites=(one.site,),
            site_count=1,
            stall=one,
        ),
    )


def test_a_census_without_loops_finds_nothing() -> None:
    assert stalled(Census(0.0), max_sites=10) == ()


def test_what_was_quiet_for_a_minute_ends_where_it_was_open_and_opens_nowhere() -> None:
    quiet = stall(quiet_s=QUIET_S)
    assert found(quiet) == ()
    (ended,) = found(quiet, opened=(quiet.site.fingerprint,))
    assert ended.ended == "quiet"


def test_at_most_one_opens_a_minute_for_each_site() -> None:
    ledger = Ledger(cooldown_s=5.0)
    changes = []
    # Blocked every 20 seconds for ten minutes, then never again.
    for at in range(0, 1200, 10):
        last = min(at, 600) // 20 * 20
        now = census(stall(quiet_s=float(at - last), count=1 + last // 20), at=float(at))
        marks = {each.finding.fingerprint or "" for each in ledger.opened}
        findings = stalled(now, open_marks=marks, max_sites=10)
        changes += [(at, each.what) for each in ledger.update(now, findings)]
    opened_or_ended = [change for change in changes if change[1] != "reminded"]
    assert opened_or_ended == [(0, "opened"), (660, "resolved")]


def test_the_sentence_says_what_blocked_for_how_long_and_whom() -> None:
    says = POLICY.found
    (finding,) = found(stall())
    assert says(finding) == (
        "an event loop has been blocked for 1.4 s so far by app.build (app.py:7), which computed, "
        "in task app.handle, in GET /x"
    )
    (finding,) = found(stall(quiet_s=3.0))
    assert says(finding) == (
        "an event loop was blocked for 1.4 s by app.build (app.py:7), which computed, "
        "in task app.handle, in GET /x"
    )
    (finding,) = found(stall(cause="waits", count=3, longest_s=125.0, quiet_s=1.0))
    assert says(finding) == (
        "event loops were blocked 3 times, for up to 2 min by app.build (app.py:7), which waited "
        "and used no CPU, in task app.handle, in GET /x"
    )
    (finding,) = found(stall(cause="gc", quiet_s=1.0))
    assert says(finding) == (
        "an event loop was blocked for 1.4 s: the garbage collector ran, in app.build (app.py:7), "
        "in task app.handle, in GET /x"
    )
    bare = replace(stall(cause=None, quiet_s=1.0), at=None, task=None)
    bare = replace(bare, site=replace(bare.site, operations=()))
    (finding,) = found(bare)
    assert says(finding) == "an event loop was blocked for 1.4 s"


def test_the_end_says_how_many_there_were() -> None:
    (finding,) = found(stall(count=2))
    detection = Detection(finding, opened_at=0.0, seen_at=70.0, peak=2)
    assert POLICY.ended(detection) == (
        "event loops are no longer blocked in app.build: there were 2 stalls of up to 1.4 s"
    )


def test_it_is_off_where_an_option_says_so() -> None:
    assert POLICY.begin(LeakConfig(stalled_s=None), lambda: None) is None
    assert POLICY.begin(LeakConfig(measure_loops=False), lambda: None) is None
    assert POLICY.begin(LeakConfig(), lambda: None) is not None
