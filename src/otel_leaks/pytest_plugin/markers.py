"""The markers of a test, class or module."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from otel_leaks.pytest_plugin.usage import usage

if TYPE_CHECKING:
    from otel_leaks.ignores import Ignore
    from otel_leaks.testing.grace import Grace

MARKERS = ("leaks", "allow_leaks")
MARKER_ARGUMENTS = ("ignore", "grace")


def marker_arguments(node: Any) -> tuple[tuple[Ignore, ...], Grace | None, bool] | None:
    """
    Read the markers of a test, class or module; an argument that is not known is an error.

    Returns:
        What it may leave behind, its own grace, and whether it may leave all behind; None
        when it has no marker of ours.
    """
    markers = [
        marker for each in node.listchain() for marker in each.own_markers if marker.name in MARKERS
    ]
    if not markers:
        return None
    ignores: list[Ignore] = []
    graces: list[Grace] = []
    for marker in markers:
        if marker.name == "leaks":
            _read_leaks(marker, node.nodeid, ignores, graces)
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
    return tuple(ignores), graces[-1] if graces else None, is_allowed


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
