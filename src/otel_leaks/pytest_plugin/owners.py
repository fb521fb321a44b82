"""
Wider fixtures that own what a test made them create.

A client of the session starts its thread when the first test uses it, and a factory of a module
creates what a test asks it for. It is the fixture that ends such a thing, much later than the
test: what its value, its generator or its finalizers hold is charged to it.
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
"""What the search in one fixture may take, seconds of CPU."""


def is_owner(fixture: Fixture) -> bool:
    """Say whether a fixture outlives its test, and may end things then."""
    return not fixture.is_function and fixture.may_end_things


def hand_to_owners(scope: Scope, owners: Iterable[Fixture], item: pytest.Item) -> bool:
    """
    Charge *owners* with what began in *scope* and they hold.

    Args:
        scope: Of the call of *item*.
        owners: Fixtures that are set up and outlive it.
        item: The test.

    Returns:
        Whether there was such a thing.
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
    # Private, the same in 7 to 9: among them what runs the second half of a generator.
    yield from definition._finalizers
    if fixture.is_xunit and definition.scope == "class" and item.cls is not None:
        # The class has what its setup_class or setUpClass made. Not the module of a setup_module:
        # its globals hold what tests keep, too.
        yield from list(vars(item.cls).values())
