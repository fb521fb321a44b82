"""The scope of the session: what was created outside of tests and fixtures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from otel_leaks.origins.recorder import starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.pytest_plugin.exits import watch_exit
from otel_leaks.runtime.native import get_ident
from otel_leaks.testing.looks import shared_taker

__all__ = ["SESSION", "SessionScope"]

SESSION = "the session, outside of tests and fixtures"


def note_coroutines() -> Callable[[], None]:
    """
    Record coroutines that are never awaited, and where they were created.

    Returns:
        A function that stops recording, to be called in the same thread.
    """
    end, depth = starts.note_coroutines(), sys.get_coroutine_origin_tracking_depth()
    # With it, Python's own warning has the origin as well.
    sys.set_coroutine_origin_tracking_depth(max(depth, 1))

    def close() -> None:
        end()
        sys.set_coroutine_origin_tracking_depth(depth)

    return close


class SessionScope:
    """The scope of the session, which records objects from the moment it is created."""

    def __init__(self) -> None:
        shared_taker.open()
        self.scope = Scope(SESSION)
        self.configuring = Scope(SESSION, self.scope)
        """The scope until the session starts: the counterpart of pytest_unconfigure."""
        self._token: Any = self.scope.enter()
        self._thread = get_ident()
        self.stand_in(self.scope)
        self._configuring_token: Any = self.configuring.enter()

    def stand_in(self, scope: Scope) -> None:
        """Attribute to *scope* what is created in this thread in an empty context."""
        starts.standing[self._thread] = scope

    def configured(self) -> None:
        """Start the session itself."""
        token, self._configuring_token = self._configuring_token, None
        if token is not None:
            self.configuring.leave(token)

    def close(self) -> None:
        """Stop recording."""
        watch_exit()
        self.configured()
        self.scope.leave(self._token)
        starts.standing.pop(self._thread, None)
        shared_taker.close()
