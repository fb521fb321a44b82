"""
The logger ``otel_leaks``, and how our lines are written to it.

A name in a log line must not forge lines or carry terminal escapes, and a line must not contain
any value: the text of an exception is the application's, so an error is logged with its type and
stack, and its message is masked like a name, without what may be a secret. A message of several
lines has only its own line breaks, and each line but the first is indented.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Final

from otel_leaks.report.masks import masked_path
from otel_leaks.report.texts import between, name_text, printable, tail

__all__ = ["LoggedError", "log", "stand_in"]

MAX_FRAMES = 20
"""Innermost frames of an error's stack."""

_log = logging.getLogger("otel_leaks")
_args = BaseException.__dict__["args"]


class LoggedError(Exception):
    """Represents an exception in the log: its type, its masked message, and its stack."""


class Log:
    """Logs like ``logging.Logger``, with arguments that may be untrusted text."""

    def info(self, message: str, *args: object) -> None:
        """Log at INFO."""
        self.log(logging.INFO, message, *args, stacklevel=3)

    def warning(self, message: str, *args: object, lines: str = "") -> None:
        """Log at WARNING; *lines* are further lines of our own, each of them indented."""
        self.log(logging.WARNING, message, *args, lines=lines, stacklevel=3)

    def error(self, message: str, *args: object) -> None:
        """Log at ERROR."""
        self.log(logging.ERROR, message, *args, stacklevel=3)

    def exception(self, message: str, *args: object) -> None:
        """Log at ERROR, with the exception that is being handled."""
        self.log(logging.ERROR, message, *args, exc_info=sys.exc_info()[1], stacklevel=3)

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        exc_info: BaseException | None = None,
        lines: str = "",
        stacklevel: int = 2,
    ) -> None:
        """
        Log a message.

        Raises:
            Exception: A handler of the application raised it.
        """
        shown = tuple(
            each if isinstance(each, (int, float)) else between(str(each)) for each in args
        )
        if lines:
            message, shown = message + "\n%s", (*shown, _indented(lines))
        error = stand_in(exc_info) if exc_info is not None else None
        _log.log(level, message, *shown, exc_info=error, stacklevel=stacklevel)


log: Final = Log()


def _indented(lines: str) -> str:
    """Make sure that no line can be mistaken for a line of the log."""
    return "\n".join(
        each if each[:2] == "  " else f"  {each}" for each in map(printable, lines.split("\n"))
    )


def stand_in(error: BaseException) -> LoggedError:
    """Return the exception to log for *error*; it references nothing of it."""
    kind = type(error)
    name = name_text(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))
    said = masked_path(_message(error))
    places = [
        f'  File "{tail(frame.f_code.co_filename)}", line {line}, '
        f"in {name_text(frame.f_code.co_name)}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    text = f"{name}: {said}" if said else name
    return LoggedError("\n".join([text, *places[-MAX_FRAMES:]]))


def _message(error: BaseException) -> str:
    """Return the message that *error* was created with, without calling its ``__str__``."""
    given = _args.__get__(error)
    of_system = 2 if isinstance(error, OSError) else 1
    text = given[of_system - 1] if len(given) == of_system else None
    return text if type(text) is str else ""
