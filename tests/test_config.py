from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_leaks import environment_variables
from otel_leaks.config import ENVIRONMENT_PREFIX, LeakConfig, environment_variable
from otel_leaks.ignores import ignore_module, ignore_thread

P = ENVIRONMENT_PREFIX
NAMES = (
    "interval_s",
    "thread_limit",
    "task_limit",
    "growth_window_s",
    "growth_windows",
    "growth_floor",
    "outlived_s",
    "outlived_count",
    "uncancelled_s",
    "saturated_s",
    "measure_loops",
    "stalled_s",
    "max_sites",
    "max_frames",
    "cooldown_s",
    "origins",
    "emit",
    "attach",
    "ignore",
)
# What each option takes, as text of its variable and as the value.
TAKEN: dict[str, tuple[str, Any]] = {
    "interval_s": ("2.5", 2.5),
    "thread_limit": ("7", 7),
    "task_limit": (" 8 ", 8),
    "growth_window_s": ("30", 30.0),
    "growth_windows": ("5", 5),
    "growth_floor": ("6", 6),
    "outlived_s": ("30", 30.0),
    "outlived_count": ("6", 6),
    "uncancelled_s": ("20", 20.0),
    "saturated_s": ("90", 90.0),
    "measure_loops": ("false", False),
    "stalled_s": ("0.5", 0.5),
    "max_sites": ("3", 3),
    "max_frames": ("4", 4),
    "cooldown_s": ("1e3", 1000.0),
    "origins": ("all", "all"),
    "emit": (" Both", "both"),
    "attach": (" True", True),
    "ignore": ('ignore_thread("w-*")', (ignore_thread("w-*"),)),
}
OPTIONAL = ("thread_limit", "task_limit", "growth_floor", "stalled_s")
SECONDS = "a number of seconds > 0 and <= 86400"
LIMIT = "a whole number >= 1, or None (an empty variable) for no limit"
FLOOR = "a whole number >= 1, or None (an empty variable) for no finding of growth"
PATIENCE = "a number of seconds > 0 and <= 86400, or None for half of growth_window_s"
STALL = (
    "a number of seconds >= 0.05 and <= 86400, or None (an empty variable) for no finding of "
    "blocked event loops"
)
FLAG = "True or False (true or false in a variable)"
IGNORES = 'ignores, or their text: ignore_thread("name-*"), ignore_module("pkg.*")'


def test_the_defaults_are_those_of_the_design() -> None:
    assert dataclasses.asdict(LeakConfig()) == {
        "interval_s": 10.0,
        "thread_limit": 200,
        "task_limit": 10_000,
        "growth_window_s": 600.0,
        "growth_windows": 8,
        "growth_floor": 20,
        "outlived_s": 60.0,
        "outlived_count": 10,
        "uncancelled_s": 60.0,
        "saturated_s": None,
        "measure_loops": True,
        "stalled_s": 1.0,
        "max_sites": 10,
        "max_frames": 32,
        "cooldown_s": 300.0,
        "origins": "threads",
        "emit": "span",
        "attach": False,
        "ignore": (),
    }


def test_every_option_has_its_variable() -> None:
    assert LeakConfig.names() == NAMES
    assert tuple(map(environment_variable, NAMES)) == (
        "OTEL_PYTHON_LEAKS_INTERVAL_S",
        "OTEL_PYTHON_LEAKS_THREAD_LIMIT",
        "OTEL_PYTHON_LEAKS_TASK_LIMIT",
        "OTEL_PYTHON_LEAKS_GROWTH_WINDOW_S",
        "OTEL_PYTHON_LEAKS_GROWTH_WINDOWS",
        "OTEL_PYTHON_LEAKS_GROWTH_FLOOR",
        "OTEL_PYTHON_LEAKS_OUTLIVED_S",
        "OTEL_PYTHON_LEAKS_OUTLIVED_COUNT",
        "OTEL_PYTHON_LEAKS_UNCANCELLED_S",
        "OTEL_PYTHON_LEAKS_SATURATED_S",
        "OTEL_PYTHON_LEAKS_MEASURE_LOOPS",
        "OTEL_PYTHON_LEAKS_STALLED_S",
        "OTEL_PYTHON_LEAKS_MAX_SITES",
        "OTEL_PYTHON_LEAKS_MAX_FRAMES",
        "OTEL_PYTHON_LEAKS_COOLDOWN_S",
        "OTEL_PYTHON_LEAKS_ORIGINS",
        "OTEL_PYTHON_LEAKS_EMIT",
        "OTEL_PYTHON_LEAKS_ATTACH",
        "OTEL_PYTHON_LEAKS_IGNORE",
    )


def test_opentelemetry_instrument_knows_every_variable() -> None:
    told = {name: value for name, value in vars(environment_variables).items() if "OTEL_" in name}
    assert told == {name: name for name in map(environment_variable, NAMES)}


def test_every_option_is_read_from_its_variable() -> None:
    environ = {environment_variable(name): text for name, (text, _) in TAKEN.items()}
    expected = LeakConfig(**{name: value for name, (_, value) in TAKEN.items()})
    assert LeakConfig.resolve({}, environ) == (expected, ())


def test_every_option_is_taken_from_code() -> None:
    options = {name: value for name, (_, value) in TAKEN.items()}
    assert LeakConfig.resolve(options, {}) == (LeakConfig(**options), ())


@pytest.mark.parametrize("name", NAMES)
def test_code_wins_over_the_environment_even_over_a_bad_value(name: str) -> None:
    value = TAKEN[name][1]
    resolved = LeakConfig.resolve({name: value}, {environment_variable(name): "no value"})
    assert resolved == (LeakConfig(**{name: value}), ())


@pytest.mark.parametrize("name", sorted(set(NAMES) - {*OPTIONAL}))
@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_variable_counts_as_unset(name: str, text: str) -> None:
    assert LeakConfig.resolve({}, {environment_variable(name): text}) == (LeakConfig(), ())


@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_limit_is_no_limit(name: str, text: str) -> None:
    expected = LeakConfig(**{name: None})  # type: ignore[arg-type]
    assert LeakConfig.resolve({}, {environment_variable(name): text}) == (expected, ())


@pytest.mark.parametrize(
    ("name", "text", "rule", "default"),
    [
        ("interval_s", "0", SECONDS, "10.0"),
        ("interval_s", "-1", SECONDS, "10.0"),
        ("interval_s", "86401", SECONDS, "10.0"),
        ("interval_s", "nan", SECONDS, "10.0"),
        ("interval_s", "inf", SECONDS, "10.0"),
        ("interval_s", "10s", SECONDS, "10.0"),
        ("cooldown_s", "5 min", SECONDS, "300.0"),
        ("emit", "events", "'span' or 'log' or 'both'", "'span'"),
        ("attach", "1", FLAG, "False"),
        ("thread_limit", "0", LIMIT, "200"),
        ("thread_limit", "2.5", LIMIT, "200"),
        ("thread_limit", "None", LIMIT, "200"),
        ("task_limit", "9" * 5000, LIMIT, "10000"),
        ("growth_window_s", "0", SECONDS, "600.0"),
        ("growth_windows", "2", "a whole number from 3 to 100", "8"),
        ("growth_floor", "0", FLOOR, "20"),
        ("max_sites", "0", "a whole number from 1 to 100", "10"),
        ("max_sites", "101", "a whole number from 1 to 100", "10"),
        ("max_frames", "201", "a whole number from 1 to 200", "32"),
    ],
)
def test_a_bad_variable_is_reported_with_its_rule_and_the_default_is_taken(
    name: str, text: str, rule: str, default: str
) -> None:
    variable = environment_variable(name)
    assert LeakConfig.resolve({}, {variable: text}) == (
        LeakConfig(),
        (f"{variable} must be {rule}, got {text!r}; the default of {default} is taken",),
    )


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (
            "kafka-*",
            'ignores are written as calls, such as ignore_thread("name-*"), separated by commas, '
            "got 'kafka-*'; known are ignore_top_function, ignore_any_function, "
            "ignore_created_by, ignore_module, ignore_thread, ignore_task, ignore_fingerprint",
        ),
        (
            'ignore_thread("")',
            "ignore_thread(''): ignore_thread needs a pattern; write it as ignore_thread(\"name\")",
        ),
    ],
)
def test_a_bad_ignore_is_reported_with_what_is_wrong_in_it(text: str, detail: str) -> None:
    assert LeakConfig.resolve({}, {P + "IGNORE": text}) == (
        LeakConfig(),
        (f"{P}IGNORE must be {IGNORES}, got {text!r} ({detail}); the default of () is taken",),
    )


def test_one_bad_variable_costs_the_others_nothing() -> None:
    config, problems = LeakConfig.resolve(
        {}, {P + "MAX_SITES": "many", P + "INTERVAL_S": "3", P + "THREAD_LIMIT": "-1"}
    )
    assert config == LeakConfig(interval_s=3.0)
    assert [problem.partition(" must be ")[0] for problem in problems] == [
        P + "THREAD_LIMIT",
        P + "MAX_SITES",
    ]


def test_an_unknown_variable_of_ours_is_reported_with_the_known_ones() -> None:
    environ = {P + "TRHEAD_LIMIT": "5", "OTEL_PYTHON_OTHER": "1", "PATH": "/bin"}
    known = ", ".join(map(environment_variable, NAMES))
    assert LeakConfig.resolve({}, environ) == (
        LeakConfig(),
        (f"unknown environment variable {P}TRHEAD_LIMIT has no effect; known are {known}",),
    )


def test_unknown_options_are_a_type_error_that_lists_the_known_ones() -> None:
    with pytest.raises(TypeError) as caught:
        LeakConfig.resolve({"limit": 5, "interval": 1}, {})
    assert str(caught.value) == (
        "unknown option 'interval', 'limit'; known options are interval_s, thread_limit, "
        "task_limit, growth_window_s, growth_windows, growth_floor, outlived_s, outlived_count, "
        "uncancelled_s, saturated_s, measure_loops, stalled_s, max_sites, max_frames, cooldown_s, "
        "origins, emit, attach, ignore"
    )


@pytest.mark.parametrize(
    ("name", "value", "error", "rule", "default"),
    [
        ("interval_s", -1, ValueError, SECONDS, "10.0"),
        ("interval_s", float("nan"), ValueError, SECONDS, "10.0"),
        ("interval_s", float("inf"), ValueError, SECONDS, "10.0"),
        ("interval_s", "10", TypeError, SECONDS, "10.0"),
        ("interval_s", True, TypeError, SECONDS, "10.0"),
        ("interval_s", None, TypeError, SECONDS, "10.0"),
        ("cooldown_s", 0, ValueError, SECONDS, "300.0"),
        ("thread_limit", 0, ValueError, LIMIT, "200"),
        ("thread_limit", 1.0, TypeError, LIMIT, "200"),
        ("thread_limit", True, TypeError, LIMIT, "200"),
        ("task_limit", "", TypeError, LIMIT, "10000"),
        ("growth_windows", 2.5, TypeError, "a whole number from 3 to 100", "8"),
        ("growth_floor", -1, ValueError, FLOOR, "20"),
        ("saturated_s", 0, ValueError, PATIENCE, "None"),
        ("saturated_s", "5", TypeError, PATIENCE, "None"),
        ("stalled_s", 0.01, ValueError, STALL, "1.0"),
        ("stalled_s", True, TypeError, STALL, "1.0"),
        ("measure_loops", 0, TypeError, FLAG, "True"),
        ("max_sites", None, TypeError, "a whole number from 1 to 100", "10"),
        ("max_frames", 0, ValueError, "a whole number from 1 to 200", "32"),
        ("attach", 1, TypeError, FLAG, "False"),
        ("ignore", 5, TypeError, IGNORES, "()"),
        ("ignore", [5], TypeError, IGNORES, "()"),
        ("ignore", None, TypeError, IGNORES, "()"),
    ],
)
def test_a_bad_value_of_code_raises_and_names_the_rule_the_value_and_the_way_out(
    name: str, value: Any, error: type[Exception], rule: str, default: str
) -> None:
    with pytest.raises(error) as caught:
        LeakConfig(**{name: value})
    assert str(caught.value) == (
        f"{name} must be {rule}, got {value!r}; leave it out for the default of {default}"
    )


def test_ignores_are_given_as_values_and_as_text() -> None:
    workers, package = ignore_thread("w-*"), ignore_module("pkg.*")
    assert [
        LeakConfig(ignore=workers),  # type: ignore[arg-type]
        LeakConfig(ignore='ignore_thread("w-*")'),  # type: ignore[arg-type]
        LeakConfig(ignore=[workers, 'ignore_module("pkg.*")']),  # type: ignore[arg-type]
    ] == [
        LeakConfig(ignore=(workers,)),
        LeakConfig(ignore=(workers,)),
        LeakConfig(ignore=(workers, package)),
    ]


@given(
    st.dictionaries(
        st.sampled_from([environment_variable(name) for name in NAMES]) | st.just(P + "X"),
        st.text() | st.sampled_from(["1", "1_0", "٣", "0x10", "1e400", "-0", '"', "[", "#", "'\\"]),
    )
)
def test_no_environment_raises(environ: dict[str, str]) -> None:
    config, problems = LeakConfig.resolve({}, environ)
    assert isinstance(config, LeakConfig)
    assert len(problems) <= len(environ)
