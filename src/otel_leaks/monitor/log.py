"""The monitor's own log lines: each failure once, with what to do."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable

from otel_leaks.census import CensusEnded
from otel_leaks.census.isolation import TIMEOUT, Parts
from otel_leaks.log import log as _log
from otel_leaks.model import Census, Failure
from otel_leaks.report.masks import masked_path

__all__ = ["MonitorLog"]

LOGGED_ONCE = 100
"""Different failures that are logged in the life of a process."""


class MonitorLog:
    """
    Logs through the application's handlers, which may raise or hang.

    Args:
        parts: Of the monitor; the log handlers are one of them.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._logged: set[object] = set()
        # Notices from a guard, which the continuing thread logs: a line, and more lines.
        self._notices: deque[tuple[str, str]] = deque(maxlen=8)

    def forked(self) -> None:
        """Forget the parent's notices."""
        self._notices.clear()

    def note(self, line: str, more: str = "") -> None:
        """Queue a line that the next looking thread logs."""
        self._notices.append((line, more))

    def say_notes(self) -> None:
        """Log the queued lines."""
        while self._notices:
            line, more = self._notices.popleft()
            self.say(logging.ERROR, "%s", line, lines=more)

    def failures(self, failures: Iterable[Failure]) -> None:
        """Log the sources that are left out of a census."""
        for failure in failures:
            key = (failure.kind, failure.error_type)
            # A hanging part was logged with its stack.
            if failure.error_type != TIMEOUT and self._is_new(key):
                self.say(
                    logging.ERROR,
                    "the census of %s failed (%s: %s); it is skipped, the others continue. "
                    "Please report this with your Python version",
                    failure.kind,
                    failure.error_type,
                    masked_path(failure.detail),
                )

    def unjudged(self, failures: Iterable[Failure]) -> None:
        """Log the objects that could not be examined."""
        for failure in failures:
            if self._is_new((failure.kind, "unjudged", failure.error_type)):
                self.say(
                    logging.ERROR,
                    "one %s could not be examined (%s: %s): it is counted, but a hint, its stack "
                    "or its name may be missing. Please report this with your Python version",
                    failure.kind,
                    failure.error_type,
                    masked_path(failure.detail),
                )

    def unreadable(self, census: Census) -> None:
        """Log the classes whose objects are not counted."""
        for population in census.populations:
            for name in population.unreadable:
                if self._is_new((population.kind, name)):
                    self.say(
                        logging.WARNING,
                        "asyncio tasks of the class %s are not counted, since reading them would "
                        "run code of that class; derive it from asyncio.Task to have them "
                        "counted",
                        name,
                    )

    def once(self, key: object, message: str, error: BaseException) -> None:
        """Log an error of our own, unless one with that key was logged before."""
        if self._is_new(key):
            self.say(logging.ERROR, "%s; this is logged once", message, error=error)

    def _is_new(self, key: object) -> bool:
        if key in self._logged or len(self._logged) >= LOGGED_ONCE:
            return False
        self._logged.add(key)
        return True

    def say(
        self,
        level: int,
        message: str,
        *args: object,
        error: BaseException | None = None,
        lines: str = "",
    ) -> None:
        """Log a line; *lines* are more lines, each of them indented."""

        def log() -> None:
            _log.log(level, message, *args, exc_info=error, lines=lines)

        try:
            self._parts.run("the log handlers", log)
        except CensusEnded:
            raise
        except BaseException as raised:
            # A handler of the application may raise. There is nowhere left to report to. In the
            # main thread it may be Ctrl-C, which is not ours.
            if isinstance(raised, KeyboardInterrupt) and _is_main():
                raise


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
