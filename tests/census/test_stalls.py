from __future__ import annotations

import pytest

from otel_leaks.census.stalls import KEPT_S, QUIET_S, STARVED, Stalls, Turn, shared, spent
from otel_leaks.model import Frame, StallCause
from otel_leaks.runtime.code import Place
from otel_leaks.runtime.thread_clocks import ThreadClock

BEFORE = ThreadClock(10.0, 1.0, 100)


def after(ran_s: float = 0.0, starved_s: float = 0.0, turns: int = 1) -> ThreadClock:
    return ThreadClock(10.0 + ran_s, 1.0 + starved_s, 100 + turns)


@pytest.mark.parametrize(
    ("seconds", "cause"),
    [
        (spent(1.0, 0.0, BEFORE, after(ran_s=0.9), 0.0), "computes"),
        (spent(1.0, 0.0, BEFORE, after(), 0.0), "waits"),
        # Whoever sleeps while another thread computes waits for nothing of it.
        (spent(1.0, 0.0, BEFORE, after(turns=2), 1.0), "waits"),
        (spent(1.0, 0.8, BEFORE, after(ran_s=0.9), 0.0), "gc"),
        (spent(1.0, 0.0, BEFORE, after(ran_s=0.2, starved_s=0.7), 0.0), "no_cpu"),
        (spent(1.0, 0.0, BEFORE, after(ran_s=0.1, turns=180), 0.8), "gil"),
        # Who sleeps often and short wakes as often as who waits for the GIL; nobody has it.
        (spent(1.0, 0.0, BEFORE, after(ran_s=0.1, turns=180), 0.0), "waits"),
        (spent(1.0, 0.0, None, None, 0.0), None),
        (spent(1.0, 0.9, None, None, 0.0), "gc"),
    ],
)
def test_what_most_of_the_time_went_on_is_the_cause(
    seconds: dict[StallCause, float], cause: StallCause | None
) -> None:
    turn = Turn(0.0)
    turn.spend(seconds)
    assert turn.cause() == cause


def place(name: str, at: int) -> Place:
    return (_code(name), at, at)


_codes: dict[str, Place] = {}


def _code(name: str):  # type: ignore[no-untyped-def]
    if name not in _codes:
        space: dict[str, object] = {}
        exec(f"def {name}(): pass", space)
        _codes[name] = space[name].__code__  # type: ignore[attr-defined]
    return _codes[name]


def test_stacks_share_what_ran_all_the_time() -> None:
    one = [place("handler", 1), place("build", 5), place("dumps", 2)]
    other = [place("handler", 1), place("build", 9), place("loads", 2)]
    assert shared(one, other) == [place("handler", 1), place("build", 9)]
    assert shared(one, one) == one
    assert shared(one, [place("tick", 1)]) == []


def test_a_turn_of_many_callbacks_is_nobodys() -> None:
    turn = Turn(0.0)
    turn.spend({"computes": 1.0})
    turn.add([place("one", 1)])
    assert turn.cause() == "computes"
    turn.add([place("two", 1)])
    assert turn.cause() == "many"


def begin(stalls: Stalls, turn: Turn, now: float, function: str = "app.build") -> None:
    frame = Frame(function, "app.py", 1)
    stalls.begin(
        turn,
        now,
        functions=[function],
        stack=(frame,),
        at=frame,
        task=None,
        name="",
        thread_id=1,
        operation=None,
    )


def test_stalls_at_one_site_are_counted_together_until_a_minute_is_quiet() -> None:
    stalls = Stalls()
    for at in (0.0, 30.0):
        turn = Turn(at)
        begin(stalls, turn, at + 1.5)
        stalls.end(turn, at + 2.1, 2.0 + at / 30)
    (stall,) = stalls.now(40.0)
    assert (stall.site.count, stall.longest_s) == (2, 3.0)
    assert stall.quiet_s == pytest.approx(7.9)
    late = 32.1 + QUIET_S
    turn = Turn(late)
    begin(stalls, turn, late + 1.0)
    (stall,) = stalls.now(late + 1.0)
    assert (stall.site.count, stall.longest_s, stall.quiet_s) == (1, 1.0, 0.0)


def test_a_stall_that_goes_on_is_not_quiet_and_grows() -> None:
    stalls = Stalls()
    turn = Turn(0.0)
    begin(stalls, turn, 1.0)
    stalls.goes_on(turn, 500.0)
    (stall,) = stalls.now(500.0)
    assert (stall.longest_s, stall.quiet_s, stall.site.age_s) == (500.0, 0.0, 500.0)


def test_the_longest_comes_first_and_what_is_long_past_is_forgotten() -> None:
    stalls = Stalls()
    for function, took_s in (("app.a", 1.0), ("app.b", 2.0)):
        turn = Turn(0.0)
        begin(stalls, turn, took_s, function)
        stalls.end(turn, took_s, took_s)
    assert [each.site.function for each in stalls.now(10.0)] == ["app.b", "app.a"]
    assert stalls.now(KEPT_S + 2.0) == ()


def test_a_pause_of_the_process_is_no_part_of_a_stall() -> None:
    stalls = Stalls()
    turn = Turn(0.0, excluded_s=5.0)
    begin(stalls, turn, 6.5)
    stalls.end(turn, 7.0, 7.0)
    assert stalls.now(8.0)[0].longest_s == 2.0


def test_a_turn_that_waits_for_a_cpu_is_no_news_before_it_took_very_long() -> None:
    turn = Turn(0.0)
    turn.spend({"no_cpu": 3.0, "computes": 0.5})
    assert turn.blocked_s(3.5, 1.0) == 0.5
    assert turn.blocked_s(STARVED * 1.0, 1.0) == STARVED * 1.0


def test_a_stall_for_which_no_code_is_to_blame_has_a_site_of_its_own() -> None:
    stalls = Stalls()
    for function in ("app.a", "app.b"):
        turn = Turn(0.0)
        turn.spend({"gc": 1.0})
        begin(stalls, turn, 1.0, function)
        stalls.end(turn, 1.0, 1.0)
    (stall,) = stalls.now(2.0)
    assert (stall.site.functions, stall.site.count) == (("<garbage collection>",), 2)
