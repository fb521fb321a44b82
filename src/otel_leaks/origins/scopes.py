"""What leaks are charged to: a block, a test, a fixture."""

from __future__ import annotations

import contextvars

__all__ = ["Scope", "scope_here", "scope_of_context"]

_SCOPE: contextvars.ContextVar[Scope | None] = contextvars.ContextVar(
    "otel_leaks_scope", default=None
)


class Scope:
    """
    What leaks are charged to: a block, a test, a fixture.

    Args:
        label: As a message names it; None for a block.
        parent: The scope around it, to which its things are charged too.
    """

    __slots__ = ("__weakref__", "began", "label", "parent")

    def __init__(self, label: str | None = None, parent: Scope | None = None) -> None:
        self.label = label
        self.parent = parent
        self.began = 0
        """How many things began in it; a scope in which nothing began is clean."""

    def holds(self, other: Scope | None) -> bool:
        """Say whether *other* is this scope or one inside it."""
        while other is not None:
            if other is self:
                return True
            other = other.parent
        return False

    def count(self) -> None:
        """Note that a thing began in it, and so in those around it."""
        scope: Scope | None = self
        while scope is not None:
            scope.began += 1
            scope = scope.parent

    def enter(self) -> contextvars.Token[Scope | None]:
        """Make it the scope of what begins from here on."""
        return _SCOPE.set(self)

    @staticmethod
    def leave(token: contextvars.Token[Scope | None]) -> None:
        """Go back to the scope before ``enter``."""
        # A ValueError means another context than that of enter, such as a fixture's that
        # runs its two halves in two tasks. What it set is gone with that context.
        try:  # noqa: SIM105 - twice a test; suppress() costs ten times as much
            _SCOPE.reset(token)
        except ValueError:
            pass


def scope_of_context(context: contextvars.Context | None) -> Scope | None:
    """Return the scope that things begun in *context* belong to."""
    return context.get(_SCOPE) if context is not None else None


def scope_here() -> Scope | None:
    """Return the scope of the context that is current, None for none."""
    return _SCOPE.get()
