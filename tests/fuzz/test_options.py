"""Options that nobody would write: the application starts, and each problem is explained."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otel_leaks.config import LeakConfig, environment_variable

NAMES = LeakConfig.names()

# What an environment can hold: no NUL, but bytes that are not UTF-8, as lone surrogates.
texts = st.text(st.characters(exclude_characters="\0"), max_size=200)
almost = st.sampled_from(
    [
        *("1", "-1", "1e9", "1e999", "nan", "1_000", " 7 ", "٣", "9" * 5000, "None", "null", "all"),
        *("span", "LOG", "İ", "\x1b[31m", 'ignore_thread("a")', 'ignore_thread("a", until="x")'),
        *("ignore_thread(*'ab')", "ignore_thread(**{'pattern': 'a'})", "(" * 500, "-" * 9000),
        *(
            "ignore_thread(1if 0 else 2)",
            "lambda:0",
            "ignore_thread(f'{x}')",
            "ignore_thread(b'a')",
        ),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | almost,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


def is_explained(problem: str, name: str) -> bool:
    """Whether a text names the option, its rule, and what is done about it."""
    return name in problem and " must be " in problem and problem.endswith(" is taken")


@given(
    st.dictionaries(st.sampled_from([environment_variable(each) for each in NAMES]), texts | almost)
)
def test_each_variable_is_taken_or_its_problem_says_what_is_right(environ: dict[str, str]) -> None:
    config, problems = LeakConfig.resolve({}, environ)
    default = LeakConfig()
    for name in NAMES:
        told = [each for each in problems if environment_variable(name) in each.split()[0]]
        assert all(is_explained(each, environment_variable(name)) for each in told)
        assert not told or getattr(config, name) == getattr(default, name)
    assert len(problems) <= len(environ)


@given(st.dictionaries(st.sampled_from(NAMES) | texts, values, max_size=5))
def test_each_value_of_a_file_is_taken_or_its_problem_says_what_is_right(
    options: dict[str, Any],
) -> None:
    config, problems = LeakConfig.resolve(options, {}, of_file=True)
    unknown = [each for each in options if each not in NAMES]
    assert all(
        each.startswith("unknown option") or is_explained(each, "of the configuration file")
        for each in problems
    )
    assert any(each.startswith("unknown option") for each in problems) == bool(unknown)
    assert all(
        getattr(config, name) == value
        for name, value in options.items()
        if name in NAMES
        and isinstance(value, (int, float))
        and not any(name in p for p in problems)
    )
    assert math.isfinite(config.interval_s)


@given(st.dictionaries(st.sampled_from(NAMES) | texts, values, max_size=5))
def test_a_value_of_code_is_taken_or_raises_what_names_it(options: dict[str, Any]) -> None:
    try:
        LeakConfig.resolve(options, {})
    except (TypeError, ValueError) as error:
        said = str(error)
        assert said.startswith("unknown option") or any(
            said.startswith(f"{name} must be ") for name in options
        )
