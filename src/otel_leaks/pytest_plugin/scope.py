"""The scope of the session: what began outside of tests and fixtures."""

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
    Note coroutines that are never awaited, and where they are created.

    Returns:
        What ends it, to be called in the same thread.
    """
    end, depth = starts.note_coroutines(), sys.get_coroutine_origin_tracking_depth()
    # Python's own warning says where as well, then.
    sys.set_coroutine_origin_tracking_depth(max(depth, 1))

    def close() -> None:
        end()
        sys.set_coroutine_origin_tracking_depth(depth)

    return close


class SessionScope:
    """The scope of the session, in which is noted what begins from the moment it is made."""

    def __init__(self) -> None:
        shared_taker.open()
        self.scope = Scope(SESSION)
        self.configuring = Scope(SESSION, self.scope)
        """Until the session starts: the counterpart of pytest_unconfigure."""
        self._token: Any = self.scope.enter()
        self._thread = get_ident()
        self.stand_in(self.scope)
        self._configuring_token: Any = self.configuring.enter()

    def stand_in(self, scope: Scope) -> None:
        """Charge *scope* with what begins in this thread and an empty context."""
        starts.standing[self._thread] = scope

    def configured(self) -> None:
        """Begin the session itself."""
        token, self._configuring_token = self._configuring_token, None
        if token is not None:
            self.configuring.leave(token)

    def close(self) -> None:
        """End to note."""
        watch_exit()
        self.configured()
        self.scope.leave(self._token)
        starts.standing.pop(self._thread, None)
        shared_taker.close()
