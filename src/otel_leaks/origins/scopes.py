"""The scope that leaks are attributed to: a block, a test, a fixture."""

from __future__ import annotations

import contextvars

__all__ = ["Scope", "scope_here", "scope_of_context"]

_SCOPE: contextvars.ContextVar[Scope | None] = contextvars.ContextVar(
    "otel_leaks_scope", default=None
)


class Scope:
    """
    The scope that leaks are attributed to: a block, a test, a fixture.

    Args:
        label: Its name in messages; None for a block.
        parent: The scope around it, to which its objects are attributed too.
    """

    __slots__ = ("__weakref__", "created", "label", "parent")

    def __init__(self, label: str | None = None, parent: Scope | None = None) -> None:
        self.label = label
        self.parent = parent
        self.created = 0
        """How many objects were created in it; a scope in which none was created is clean."""

    def holds(self, other: Scope | None) -> bool:
        """Return whether *other* is this scope or one inside it."""
        while other is not None:
            if other is self:
                return True
            other = other.parent
        return False

    def count(self) -> None:
        """Count an object created in it, and so in the scopes around it."""
        scope: Scope | None = self
        while scope is not None:
            scope.created += 1
            scope = scope.parent

    def enter(self) -> contextvars.Token[Scope | None]:
        """Make it the scope of everything created from here on."""
        return _SCOPE.set(self)

    @staticmethod
    def leave(token: contextvars.Token[Scope | None]) -> None:
        """Go back to the scope before ``enter``."""
        # A ValueError means a different context than enter() had, as when the two halves of a
        # fixture run in two tasks. The value is gone with that context.
        try:  # noqa: SIM105 - twice a test; suppress() costs ten times as much
            _SCOPE.reset(token)
        except ValueError:
            pass


def scope_of_context(context: contextvars.Context | None) -> Scope | None:
    """Return the scope of objects created in *context*."""
    return context.get(_SCOPE) if context is not None else None


def scope_here() -> Scope | None:
    """Return the scope of the current context, None if there is none."""
    return _SCOPE.get()
