"""
Every option once: its default, its environment variable, its check.

The environment never breaks an application: an invalid value is reported as a problem and
replaced by its default. In code it raises.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, final, get_args

from otel_leaks.errors import InvalidTypeError, InvalidValueError
from otel_leaks.ignores import Ignore, parse
from otel_leaks.model import Emit

__all__ = ["ENVIRONMENT_PREFIX", "LeakConfig", "environment_variable"]

ENVIRONMENT_PREFIX = "OTEL_PYTHON_LEAKS_"

LEAST_STALL_S = 0.05

ORIGINS = ("off", "threads", "all")


@dataclass(frozen=True, slots=True)
class _Option:
    """How one option is read and checked."""

    rule: str
    """What a value must be, as worded in an error."""
    read: Callable[[str], Any]
    """Turns an environment variable's text into a value; raises ValueError."""
    check: Callable[[Any], Any]
    """Returns the value to keep; raises TypeError or ValueError without a message."""


def _seconds(text: str) -> float:
    return float(text)


def _check_seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    if not (0 < value <= 86_400) or not math.isfinite(value):
        raise ValueError
    return value


def _seconds_or_none(text: str) -> float | None:
    return float(text) if text else None


def _check_stall(value: Any) -> float | None:
    if value is None:
        return None
    seconds = _check_seconds(value)
    if seconds < LEAST_STALL_S:
        raise ValueError
    return seconds


def _check_whole(least: int, most: int, *, optional: bool = False) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError
        if not least <= value <= most:
            raise ValueError
        return value

    return check


def _whole_or_none(text: str) -> int | None:
    return int(text) if text else None


def _check_ignore(value: Any) -> tuple[Ignore, ...]:
    given = (value,) if isinstance(value, (str, Ignore)) else value
    if not isinstance(given, Iterable):
        raise TypeError
    ignores: list[Ignore] = []
    for each in given:
        if isinstance(each, Ignore):
            ignores.append(each)
        elif isinstance(each, str):
            ignores.extend(parse(each))
        else:
            raise TypeError
    return tuple(ignores)


def _check_emit(value: Any) -> Emit:
    if not isinstance(value, str):
        raise TypeError
    if value not in get_args(Emit):
        raise ValueError
    return cast("Emit", value)


_EMIT = _Option(" or ".join(map(repr, get_args(Emit))), str.lower, _check_emit)
_INTERVAL = _Option("a number of seconds > 0 and <= 86400", _seconds, _check_seconds)
_LIMIT = _Option(
    "a whole number >= 1, or None (an empty variable) for no limit",
    _whole_or_none,
    _check_whole(1, 1_000_000_000, optional=True),
)
_FLOOR = _Option(
    "a whole number >= 1, or None (an empty variable) for no finding of growth",
    _whole_or_none,
    _check_whole(1, 1_000_000_000, optional=True),
)
_PATIENCE = _Option(
    "a number of seconds > 0 and <= 86400, or None for half of growth_window_s",
    _seconds,
    lambda value: None if value is None else _check_seconds(value),
)
_STALL = _Option(
    "a number of seconds >= 0.05 and <= 86400, or None (an empty variable) for no finding of "
    "blocked event loops",
    _seconds_or_none,
    _check_stall,
)
_OPTIONAL = (_LIMIT, _FLOOR, _STALL)
"""Options that an empty variable turns off."""


def _whole(least: int, most: int) -> _Option:
    return _Option(f"a whole number from {least} to {most}", int, _check_whole(least, most))


def _check_origins(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if value not in ORIGINS:
        raise ValueError
    return value


_ORIGINS = _Option('"off", "threads" or "all"', str, _check_origins)
_IGNORE = _Option(
    'ignores, or their text: ignore_thread("name-*"), ignore_module("pkg.*")', parse, _check_ignore
)


_WORDS = {"true": True, "false": False}


def _flag(text: str) -> bool:
    # OpenTelemetry's rule: "true" in any case, nothing else is true.
    if text.lower() not in _WORDS:
        raise ValueError
    return _WORDS[text.lower()]


def _check_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


_FLAG = _Option("True or False (true or false in a variable)", _flag, _check_flag)


def _field(default: Any, option: _Option) -> Any:
    return dataclasses.field(default=default, metadata={"option": option})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeakConfig:
    """
    The resolved options of ``LeakInstrumentor().instrument()``.

    Raises:
        InvalidTypeError: A value has the wrong type.
        InvalidValueError: A value is out of its range.

    >>> LeakConfig(task_limit=500).task_limit, LeakConfig().task_limit
    (500, 10000)

    .. versionadded:: 0.1
    """

    interval_s: float = _field(10.0, _INTERVAL)
    """Minimum seconds between two censuses; stretched to stay under 1 % of a core."""
    thread_limit: int | None = _field(200, _LIMIT)
    """Number of threads above which a threshold finding opens; None for no limit."""
    task_limit: int | None = _field(10_000, _LIMIT)
    """Number of pending tasks above which a threshold finding opens; None for no limit."""
    growth_window_s: float = _field(600.0, _INTERVAL)
    """Seconds of a window; the lowest count of each is compared with the one before."""
    growth_windows: int = _field(8, _whole(3, 100))
    """Number of consecutive windows that must rise for a growth finding."""
    growth_floor: int | None = _field(20, _FLOOR)
    """How much they must rise in all; None turns growth findings off."""
    outlived_s: float = _field(60.0, _INTERVAL)
    """Seconds after the end of its span when a task counts as having outlived it."""
    outlived_count: int = _field(10, _whole(1, 1_000_000))
    """Number of tasks of one function that must outlive their spans before a leak is considered."""
    uncancelled_s: float = _field(60.0, _INTERVAL)
    """Seconds after the request for its cancellation when a task that is pending counts as refusing
    it."""
    saturated_s: float | None = _field(None, _PATIENCE)
    """Seconds during which a thread pool takes no job from a growing queue, which then opens a
    finding; None for half of ``growth_window_s``."""
    measure_loops: bool = _field(True, _FLAG)
    """Whether the delay and the utilization of event loops are measured, and whether blocked ones
    are found."""
    stalled_s: float | None = _field(1.0, _STALL)
    """Seconds during which an event loop does not turn, which then opens a finding; None for no
    such finding."""
    max_sites: int = _field(10, _whole(1, 100))
    """Maximum number of sites, and so of span events, in one detection."""
    max_frames: int = _field(32, _whole(1, 200))
    """Maximum number of frames in each stack; the outermost are omitted first."""
    cooldown_s: float = _field(300.0, _INTERVAL)
    """Seconds until the first reminder of an open finding; doubles each time, up to an hour."""
    origins: Literal["off", "threads", "all"] = _field("threads", _ORIGINS)
    """For which objects the creation site is recorded: none, threads, or asyncio tasks too."""
    emit: Emit = _field("span", _EMIT)  # noqa: RUF009 - a str, as immutable as the others
    """Where the samples of a detection go: events of its span, log records, or both."""
    attach: bool = _field(False, _FLAG)
    """Whether ``otel-leaks ps`` of the same user may look into the process at any time, over a
    Unix socket; from Python 3.14 on it may without."""
    ignore: tuple[Ignore, ...] = _field((), _IGNORE)
    """What to ignore, besides the package's own threads and the SDK's."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, _checked(field, value, field.name))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all options, in their order."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def resolve(
        cls, options: Mapping[str, Any], environ: Mapping[str, str], *, of_file: bool = False
    ) -> tuple[LeakConfig, tuple[str, ...]]:
        """
        Combine given options, the environment and the defaults, in that precedence.

        Args:
            options: Keyword arguments of ``instrument()``.
            environ: The environment; variables that do not begin with
                ``OTEL_PYTHON_LEAKS_`` are ignored.
            of_file: Whether *options* come from a configuration file. A bad one is then not an
                error in the program: it is replaced by its default.

        Returns:
            The options, and one sentence for each value that was not accepted.

        Raises:
            InvalidTypeError: An unknown option, or a value of a wrong type in *options* of code.
            InvalidValueError: A value in *options* of code is out of its range.
        """
        problems = []
        unknown = [name for name in options if name not in cls.names()]
        if unknown:
            which = f"unknown option {', '.join(map(repr, sorted(unknown, key=str)))}"
            known = f"known options are {', '.join(cls.names())}"
            if not of_file:
                raise InvalidTypeError(f"{which}; {known}")
            problems.append(f"{which} of the configuration file has no effect; {known}")
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            variable = environment_variable(field.name)
            option = field.metadata["option"]
            try:
                if field.name in options:
                    value = options[field.name]
                    values[field.name] = (
                        _checked(field, value, f"{field.name} of the configuration file")
                        if of_file
                        else value
                    )
                elif environ.get(variable, "").strip() or (
                    variable in environ and option in _OPTIONAL
                ):
                    # An empty variable counts as unset (OpenTelemetry's rule), but for a limit.
                    values[field.name] = _read(field, environ[variable], variable)
            except (TypeError, ValueError) as error:
                problems.append(str(error))
        known_variables = set(map(environment_variable, cls.names()))
        problems += [
            f"unknown environment variable {variable} has no effect; "
            f"known are {', '.join(map(environment_variable, cls.names()))}"
            for variable in sorted(environ)
            if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known_variables
        ]
        return cls(**values), tuple(problems)


def environment_variable(option: str) -> str:
    """Return the name of an option's environment variable."""
    return ENVIRONMENT_PREFIX + option.upper()


def _read(field: dataclasses.Field[Any], text: str, variable: str) -> Any:
    option: _Option = field.metadata["option"]
    try:
        value = option.read(text.strip())
    except ValueError as error:
        raise _error(field, text, variable, error) from None
    return _checked(field, value, variable, text)


def _checked(field: dataclasses.Field[Any], value: Any, what: str, text: str | None = None) -> Any:
    option: _Option = field.metadata["option"]
    try:
        return option.check(value)
    except (TypeError, ValueError) as error:
        raise _error(field, value if text is None else text, what, error) from None


def _error(
    field: dataclasses.Field[Any],
    value: object,
    what: str,
    cause: Exception,
) -> Exception:
    option: _Option = field.metadata["option"]
    detail = f" ({cause})" if option is _IGNORE and str(cause) else ""
    wayout = f"leave it out for the default of {field.default!r}"
    if what != field.name:
        wayout = f"the default of {field.default!r} is taken"
    kind = InvalidTypeError if isinstance(cause, TypeError) else InvalidValueError
    return kind(f"{what} must be {option.rule}, got {value!r}{detail}; {wayout}")
