"""The origins of what one line creates."""

from __future__ import annotations

import gc
import sys

from otel_leaks.model import Origin
from otel_leaks.origins.lines import Lines
from otel_leaks.origins.scopes import Scope


def test_what_one_line_creates_in_one_scope_has_one_origin() -> None:
    lines, scope = Lines(lambda _: None), Scope("test_it")
    one, two = lines.origin(sys._getframe(), scope), lines.origin(sys._getframe(), scope)
    assert one is two
    assert one.scope == "test_it"


def test_a_line_that_creates_in_two_scopes_has_an_origin_for_each() -> None:
    lines = Lines(lambda _: None)
    found = [lines.origin(sys._getframe(), Scope(label)) for label in ("one", "two", "one")]
    assert [each.scope for each in found] == ["one", "two", "one"]
    assert found[0] is found[2]
    assert found[0].line == found[1].line


def _alive(kind: type) -> int:
    gc.collect()  # What other tests left goes now, and not between two counts.
    return sum(type(each) is kind for each in gc.get_objects())


def test_the_origins_of_tests_that_are_over_are_not_kept() -> None:
    lines, before = Lines(lambda _: None), _alive(Origin)
    for i in range(1_000):
        lines.origin(sys._getframe(), Scope(f"test_{i}"))
    assert _alive(Origin) - before < 100


def test_the_lines_of_tests_that_are_over_are_not_kept() -> None:
    lines, before = Lines(lambda _: None), _alive(Origin)
    code = compile("lines.origin(frame(), None)\n" * 1_000, "test_many.py", "exec")
    exec(code, {"lines": lines, "frame": sys._getframe, "__name__": "test_many"})
    assert 0 < _alive(Origin) - before < 500
