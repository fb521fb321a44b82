from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_leaks.model import fingerprint
from otel_leaks.report.masks import masked, masked_path
from otel_leaks.report.texts import (
    MAX_NAME_BYTES,
    _name_text,
    between,
    head,
    name_text,
    plain,
    printable,
    tail,
)

# Lone surrogates too, as os.fsdecode makes them.
ANY = st.text(st.characters(exclude_categories=()), max_size=3000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/app.py", "/srv/app.py"),
        ("größe 大きさ", "größe 大きさ"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x0b\x0c\x85\u2028\u2029", "\\x0b\\x0c\\x85\\u2028\\u2029"),
        ("\0\x1b[31m\x9b\x7f", "\\x00\\x1b[31m\\x9b\\x7f"),
        ("\u202e\u2066\u200f", "\\u202e\\u2066\\u200f"),
        ("caf\udce9/app.py", "caf\\udce9/app.py"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_not_printable_is_an_escape(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize("cut", [printable, head, tail, between, name_text])
@given(text=ANY)
def test_any_text_becomes_one_line_of_printable_utf_8(cut: Callable[[str], str], text: str) -> None:
    said = cut(text)
    assert said.isprintable()
    assert len(said.splitlines()) <= 1
    said.encode()


@pytest.mark.parametrize("cut", [head, tail, between])
@given(text=ANY, most=st.integers(1, 200))
def test_a_text_is_no_longer_than_it_may_be(
    cut: Callable[[str, int], str], text: str, most: int
) -> None:
    said = cut(text, most)
    assert len(said) <= most
    if len(printable(text)) <= most:
        assert said == printable(text)


@given(text=ANY, most=st.integers(1, 600))
def test_a_name_is_no_longer_than_it_may_be_in_bytes(text: str, most: int) -> None:
    said = name_text(text, most)
    assert len(said.encode()) <= most
    if len(printable(text).encode()) <= most:
        assert said == printable(text)


def test_each_cut_keeps_the_end_that_says_most() -> None:
    text = "abcdefghij"
    assert (head(text, 5), tail(text, 5), between(text, 5)) == ("ab...", "...ij", "a...j")


def test_two_long_names_that_differ_in_the_middle_stay_two_and_each_stays_the_same() -> None:
    one, two = (f"app.{'f' * 3000}{n}{'g' * 3000}.run" for n in (1, 2))
    assert name_text(one) != name_text(two)
    assert name_text(one).startswith("app.fff")
    assert name_text(one).endswith("ggg.run")
    assert len(name_text(one).encode()) == MAX_NAME_BYTES
    assert name_text(one) == _name_text.__wrapped__(one, MAX_NAME_BYTES)
    # The mark between the ends is the same in every process.
    assert "...a2c3145a3618..." in name_text("é" * 4000)


def test_a_fingerprint_is_of_the_name_as_the_application_has_it() -> None:
    names = ("app.\udce9", "app.\\udce9", "a" * 4000, "a" * 4001)
    assert len({fingerprint("thread", (name,)) for name in names}) == len(names)


class Hostile(str):
    """Text of an application that answers no question."""

    __slots__ = ()

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("nothing of the application's is called")

    __str__ = __repr__ = __len__ = __getitem__ = __iter__ = __hash__ = __eq__ = _refuse
    isprintable = isascii = islower = _refuse
    encode = split = format = _refuse  # type: ignore[assignment]


@pytest.mark.parametrize(
    "cut", [printable, head, tail, between, name_text, masked, masked_path, plain]
)
def test_a_text_with_methods_of_its_own_is_read_and_not_asked(cut: Callable[[Any], str]) -> None:
    said = cut(Hostile("Thread"))
    assert type(said) is str
    assert said == "Thread"
    assert cut(3) == ""
