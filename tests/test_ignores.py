from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_leaks.ignores import (
    BUILT_IN,
    Ignore,
    Ignores,
    ignore_any_function,
    ignore_fingerprint,
    ignore_module,
    ignore_task,
    ignore_thread,
    ignore_top_function,
    parse,
)

STACK = ("app.main", "app.Worker.run", "threading.wait")


@pytest.mark.parametrize(
    ("ignore", "hides"),
    [
        (ignore_top_function("threading.wait"), True),
        (ignore_top_function("threading.*"), True),
        (ignore_top_function("app.main"), False),
        (ignore_top_function("app.Worker.run"), False),
        (ignore_any_function("app.Worker.run"), True),
        (ignore_any_function("app.main"), True),
        (ignore_any_function("app.Worker"), False),
        (ignore_module("app"), True),
        (ignore_module("app.*"), True),
        (ignore_module("a*"), True),
        (ignore_module("ap"), False),
        (ignore_module("App"), False),
        (ignore_module("threading"), False),
        (ignore_module("app.main"), False),
        (ignore_fingerprint("0123456789ab"), True),
        (ignore_fingerprint("0123*"), True),
        (ignore_fingerprint("ba9876543210"), False),
        (ignore_thread("app.main"), False),
    ],
    ids=str,
)
def test_a_site_is_hidden_by_its_functions_or_its_fingerprint(ignore: Ignore, hides: bool) -> None:
    expected = ignore if hides else None
    assert Ignores((ignore,)).site(STACK, "0123456789ab") is expected


def test_a_module_takes_its_submodules_but_not_its_namesakes() -> None:
    ignores = Ignores((ignore_module("pkg.*"),))
    hidden = [
        function
        for function in ("pkg.f", "pkg.sub.f", "pkg.sub.C.f", "pkgs.f", "my.pkg.f", "pkg")
        if ignores.site((function,), "")
    ]
    assert hidden == ["pkg.f", "pkg.sub.f", "pkg.sub.C.f"]


def test_names_hide_objects_of_their_own_kind_only() -> None:
    thread, task = ignore_thread("w-*"), ignore_task("t-*")
    ignores = Ignores((thread, task))
    assert [
        ignores.name("thread", "w-1"),
        ignores.name("thread", "t-1"),
        ignores.name("asyncio_task", "t-1"),
        ignores.name("asyncio_task", "w-1"),
        ignores.name("thread", "W-1"),
    ] == [thread, None, task, None, None]


def test_the_first_of_two_that_match_hides() -> None:
    first, second = ignore_thread("a*"), ignore_thread("*b")
    assert Ignores((first, second)).name("thread", "ab") is first


def test_names_of_tasks_are_asked_for_only_when_an_ignore_needs_them() -> None:
    assert not Ignores((ignore_thread("x"),)).by_task_name
    assert Ignores((ignore_task("x"),)).by_task_name


def test_an_ignore_holds_on_its_last_day_and_not_on_the_next() -> None:
    ignore = ignore_thread("w", until="2026-06-30")
    held = Ignores((ignore,), today=dt.date(2026, 6, 30))
    over = Ignores((ignore,), today=dt.date(2026, 7, 1))
    assert (held.name("thread", "w"), held.expired) == (ignore, ())
    assert (over.name("thread", "w"), over.expired) == (None, (ignore,))


def test_no_thread_is_hidden_by_its_name_and_each_ignore_says_why() -> None:
    assert [each for each in BUILT_IN if each.rule in {"thread", "task"}] == []
    assert [each for each in BUILT_IN if not each.reason] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  \n ", ()),
        ('ignore_thread("a-*")', (ignore_thread("a-*"),)),
        ("ignore_thread('a'),", (ignore_thread("a"),)),
        (
            'ignore_thread("a", reason="x, y"), ignore_module("p.*", until="2027-01-31")',
            (
                ignore_thread("a", reason="x, y"),
                ignore_module("p.*", until=dt.date(2027, 1, 31)),
            ),
        ),
        (
            '\n  ignore_task("t")\n\n  ignore_fingerprint("0123456789ab"),\n',
            (ignore_task("t"), ignore_fingerprint("0123456789ab")),
        ),
    ],
)
def test_ignores_are_read_as_the_calls_that_make_them(
    text: str, expected: tuple[Ignore, ...]
) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kafka-*", "written as calls"),
        ("ignore_thread", "written as calls"),
        ("ignore_threads('a')", "unknown ignore 'ignore_threads'; known are ignore_top_function, "),
        ("ignore_thread()", "pattern"),
        ("ignore_thread('')", "needs a pattern"),
        ("ignore_fingerprint('2:0123456789ab')", "takes fingerprints of scheme 1, got '2:0123"),
        ("ignore_thread(5)", "must be a str, got 5"),
        ("ignore_thread('a', until='soon')", "must be a date such as 2027-01-31, got 'soon'"),
        ("ignore_thread('a', why='b')", "why"),
        ("ignore_thread(**{'pattern': 'a'})", "None"),
        ("ignore_thread(*'a')", "ignore_thread"),
        ("ignore_thread('a'", "written as calls"),
        ("ignore_thread('a')]", "written as calls"),
        ("ignore_thread('a')] + [ignore_thread('b')", "written as calls"),
        ("x.ignore_thread('a')", "written as calls"),
        ("ignore_thread(open('/etc/passwd'))", "ignore_thread"),
        ("\0", "written as calls"),
        ("(" * 5000, "written as calls"),
        ("ignore_thread(" + "-" * 100_000 + "1)", "written as calls"),
        ("ignore_thread(" + "[" * 90 + "]" * 90 + ")", "must be a str"),
    ],
    ids=lambda text: text[:40],
)
def test_a_text_of_another_form_is_an_error_that_says_the_rule(text: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert told in str(caught.value)


@given(
    st.sampled_from(
        [
            ignore_top_function,
            ignore_any_function,
            ignore_module,
            ignore_thread,
            ignore_task,
            ignore_fingerprint,
        ]
    ),
    st.text(min_size=1),
    st.text(),
    st.none() | st.dates(),
)
def test_what_an_ignore_prints_makes_the_same_ignore(
    make: object, pattern: str, reason: str, until: dt.date | None
) -> None:
    assert callable(make)
    ignore = make(pattern, reason=reason, until=until)
    assert parse(str(ignore)) == (ignore,)


@pytest.mark.parametrize("until", [5, dt.datetime(2027, 1, 31)])  # noqa: DTZ001 - a wrong type
def test_an_end_that_is_no_date_is_an_error(until: object) -> None:
    with pytest.raises(TypeError, match=r"until must be a datetime\.date"):
        ignore_thread("a", until=until)  # type: ignore[arg-type]
