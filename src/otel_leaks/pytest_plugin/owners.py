"""
Wider fixtures that own what a test made them create.

A client of session scope starts its thread when the first test uses it; a factory of module
scope creates what a test asks it for. The fixture ends such an object, much later than the
test. What its value, its generator or its finalizers hold is therefore attributed to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from otel_leaks.runtime.heap import held_by

if TYPE_CHECKING:
    import pytest

    from otel_leaks.origins.scopes import Scope
    from otel_leaks.pytest_plugin.turns import Fixture

__all__ = ["hand_to_owners", "is_owner"]

SEARCH_S = 0.25
"""Time limit of the search in one fixture, seconds of CPU."""


def is_owner(fixture: Fixture) -> bool:
    """Return whether a fixture outlives its test, and may end objects in its teardown."""
    return not fixture.is_function and fixture.may_end_objects


def hand_to_owners(scope: Scope, owners: Iterable[Fixture], item: pytest.Item) -> bool:
    """
    Attribute to *owners* what was created in *scope* and what they hold.

    Args:
        scope: The scope of the call of *item*.
        owners: Fixtures that are set up and outlive it.
        item: The test.

    Returns:
        Whether there was any such object.
    """
    from otel_leaks.origins.recorder import starts

    is_handed = False
    for each in owners:

        def held(targets: Collection[int], owner: Fixture = each) -> set[int]:
            return held_by(_roots(owner, item), targets, budget_s=SEARCH_S)

        is_handed |= starts.ownership.hand_over(scope, each.scope, held)
    return is_handed


def _roots(fixture: Fixture, item: Any) -> Iterator[object]:
    definition: Any = fixture.definition
    if definition.cached_result is not None:
        yield definition.cached_result[0]
    # Private, the same in 7 to 9: one of them runs the second half of a generator.
    yield from definition._finalizers
    if fixture.is_xunit and definition.scope == "class" and item.cls is not None:
        # The class has what its setup_class or setUpClass created. The module of a setup_module
        # is left out: its globals also hold what tests keep.
        yield from list(vars(item.cls).values())
