"""
The logger ``otel_leaks``: how a line of ours gets there.

A log line must not be forged by a name in it, must not carry a terminal's escapes, and must
not hold the value of anything: what an exception says is the application's, so of an error
its type and its stack are logged, and its message like a name, without what may be a secret.
A message of several lines has its own line breaks alone, and each line but the first is
indented.
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
"""Of the stack of an error, the innermost ones."""

_log = logging.getLogger("otel_leaks")
_args = BaseException.__dict__["args"]


class LoggedError(Exception):
    """Stands for an exception in the log: its type, its masked message, and its stack."""


class Log:
    """Logs as ``logging.Logger`` does, with arguments that may be anybody's text."""

    def info(self, message: str, *args: object) -> None:
        """Log at INFO."""
        self.log(logging.INFO, message, *args, stacklevel=3)

    def warning(self, message: str, *args: object, lines: str = "") -> None:
        """Log at WARNING; *lines* are more lines of ours, each of them indented."""
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
            Exception: A handler of the application's own raised it.
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
    """Make sure that no line can be taken for a line of the log."""
    return "\n".join(
        each if each[:2] == "  " else f"  {each}" for each in map(printable, lines.split("\n"))
    )


def stand_in(error: BaseException) -> LoggedError:
    """Return what is logged for *error*; holds nothing of it."""
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
    """Return what was said when *error* was made; its ``__str__`` is the application's."""
    given = _args.__get__(error)
    of_system = 2 if isinstance(error, OSError) else 1
    text = given[of_system - 1] if len(given) == of_system else None
    return text if type(text) is str else ""
