"""The markers of a test, class or module."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from otel_leaks.pytest_plugin.usage import usage

if TYPE_CHECKING:
    from otel_leaks.ignores import Ignore
    from otel_leaks.testing.grace import Grace

MARKERS = ("leaks", "allow_leaks")
MARKER_ARGUMENTS = ("ignore", "grace", "blocking")
LEAST_BLOCKING_S = 0.01
BLOCKING_RULE = f"a number of seconds >= {LEAST_BLOCKING_S}"


class Marked(NamedTuple):
    """The settings in the markers of a test, its class and its module."""

    ignores: tuple[Ignore, ...]
    """What the test may leave behind."""
    grace: Grace | None
    is_allowed: bool
    """Whether it may leave anything behind."""
    sets_blocking: bool
    blocking_s: float | None
    """Longest iteration of its loop, None for no limit; only valid if *sets_blocking*."""


def limit_s_of(value: Any) -> float:
    """
    Return the limit of blocking that *value* sets, in seconds.

    Raises:
        ValueError: *value* is no valid limit.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < LEAST_BLOCKING_S:
        raise ValueError
    return float(value)


def marker_arguments(node: Any) -> Marked | None:
    """
    Read the markers of a test, class or module; an unknown argument is an error.

    Returns:
        The settings; None when the node has no marker of ours.
    """
    markers = [
        marker for each in node.listchain() for marker in each.own_markers if marker.name in MARKERS
    ]
    if not markers:
        return None
    ignores: list[Ignore] = []
    graces: list[Grace] = []
    limits: list[float | None] = []
    for marker in markers:
        if marker.name == "leaks":
            _read_leaks(marker, node.nodeid, ignores, graces)
            limits += _blocking(marker, node.nodeid)
            continue
        reason = marker.kwargs.get("reason")
        if (
            marker.args
            or set(marker.kwargs) != {"reason"}
            or not (isinstance(reason, str) and reason)
        ):
            raise pytest.UsageError(
                f'{node.nodeid}: write @pytest.mark.allow_leaks(reason="why"), with nothing else'
            )
    is_allowed = any(marker.name == "allow_leaks" for marker in markers)
    # The test's own marker comes after its class's and module's.
    return Marked(
        tuple(ignores),
        graces[-1] if graces else None,
        is_allowed,
        bool(limits),
        limits[-1] if limits else None,
    )


def _blocking(marker: pytest.Mark, nodeid: str) -> list[float | None]:
    if "blocking" not in marker.kwargs:
        return []
    value = marker.kwargs["blocking"]
    try:
        return [None if value is None else limit_s_of(value)]
    except ValueError:
        raise pytest.UsageError(
            f"{nodeid}: blocking of @pytest.mark.leaks must be {BLOCKING_RULE}, or None to let the "
            f"test block its loop for any time, got {value!r}"
        ) from None


def _read_leaks(
    marker: pytest.Mark, nodeid: str, ignores: list[Ignore], graces: list[Grace]
) -> None:
    from otel_leaks.ignores import Ignore, parse
    from otel_leaks.testing.grace import Grace

    unknown = [*map(repr, marker.args), *sorted(set(marker.kwargs) - set(MARKER_ARGUMENTS))]
    if unknown:
        raise pytest.UsageError(
            f"{nodeid}: unknown argument of @pytest.mark.leaks: {', '.join(unknown)}; "
            f"known are {', '.join(f'{name}=' for name in MARKER_ARGUMENTS)}"
        )
    given = marker.kwargs.get("ignore", ())
    for each in given if isinstance(given, (list, tuple, set, frozenset)) else (given,):
        if isinstance(each, Ignore):
            ignores.append(each)
        elif isinstance(each, str):
            ignores += usage(nodeid, functools.partial(parse, each))
        else:
            raise pytest.UsageError(
                f"{nodeid}: ignore of @pytest.mark.leaks must be "
                f'ignore_thread("name-*") and its like, or several, got {each!r}'
            )
    if "grace" in marker.kwargs:
        grace = marker.kwargs["grace"]
        if not isinstance(grace, Grace):
            raise pytest.UsageError(
                f"{nodeid}: grace of @pytest.mark.leaks must be a "
                f"Grace(attempts=20, max_delay_s=0.1), got {grace!r}"
            )
        graces.append(grace)
