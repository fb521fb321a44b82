"""Texts of ignores: what can't be read is a ValueError, and what is written is read back."""

from __future__ import annotations

import contextlib
import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from otel_leaks import ignores
from otel_leaks.ignores import Ignore, Ignores, parse

RULES = ("top_function", "any_function", "created_by", "module", "thread", "task", "fingerprint")

calls = st.sampled_from([f"ignore_{rule}" for rule in (*RULES, "current", "nothing")])
tokens = calls | st.sampled_from(
    [
        *("(", ")", "[", "]", "{", "}", ",", "\n", "\r", "\x0c", "\\", "'", '"', "'''", "*", "**"),
        *("reason=", "until=", "pattern=", "x", "'a'", '"a-*"', "b'a'", "f'{x}'", "1", "1e999"),
        *("None", "-", "+", " ", "#", "\0", "lambda:", "await ", "yield", ":=", ";", "...", "'['"),
        *(
            "2027-01-31",
            "'2027-01-31'",
            "for x in y",
            "\ud800",
            "\u2028",
            "\N{COMBINING ACUTE ACCENT}",
        ),
        *("(" * 300, "[" * 300, "-" * 3000, "9" * 5000, "not " * 2000, "a." * 2000),
    ]
)
texts = st.text(max_size=200) | st.lists(tokens, max_size=12).map("".join)

made = st.builds(
    Ignore,
    st.sampled_from(RULES),
    st.text(min_size=1, max_size=50),
    st.text(max_size=50),
    st.none() | st.dates(),
)


@given(texts)
def test_a_text_is_read_or_is_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(isinstance(each, Ignore) for each in parse(text))


@given(st.lists(made, max_size=4), st.sampled_from([",", ", ", "\n", ",\n", "\r\n"]))
def test_ignores_are_read_as_they_were_written(some: list[Ignore], between: str) -> None:
    assert parse(between.join(map(str, some))) == tuple(some)


@given(st.text(max_size=50), st.lists(st.text(max_size=20), min_size=1, max_size=4), made)
def test_any_pattern_is_compared_with_any_text(
    name: str, functions: list[str], ignore: Ignore
) -> None:
    held = Ignores((ignore,), today=dt.date(2020, 1, 1))
    answers = (
        held.name("thread", name),
        held.name("asyncio_task", name),
        held.site(tuple(functions), "0123456789ab"),
    )
    assert set(answers) <= {None, ignore}


@given(st.text(max_size=30), st.text(max_size=30) | st.none())
def test_each_call_makes_an_ignore_or_says_what_is_wrong(pattern: str, until: str | None) -> None:
    for rule in RULES:
        make = getattr(ignores, f"ignore_{rule}")
        try:
            found: object = make(pattern, until=until).pattern
        except ValueError as error:
            found = str(error)
        assert found == pattern or str(found).startswith(f"ignore_{rule}")
