"""
The errors and warnings of this package.

Each also derives from the built-in that a caller would expect: ``except ValueError`` catches
errors about a value, and ``except OtelLeaksError`` catches everything this package raises. The
message names the problem, the rule, the value, and the way out. In production none of them
reaches the application, except from a call of its own with an invalid argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from otel_leaks.testing.report import Report

__all__ = [
    "AttachError",
    "BaselineError",
    "CensusError",
    "FilesDifferError",
    "FingerprintSchemeError",
    "IgnoreSyntaxError",
    "InvalidTypeError",
    "InvalidValueError",
    "LeaksFound",
    "NoDaemonsError",
    "NoPortError",
    "OtelLeaksError",
    "ReportFileError",
    "UnknownExampleError",
    "UnknownProgramError",
    "UnusedIgnoreWarning",
]


class OtelLeaksError(Exception):
    """
    The base of all errors of this package.

    .. versionadded:: 0.1
    """


class LeaksFound(OtelLeaksError, AssertionError):  # noqa: N818 - reads as what happened, as goleak says it
    """
    Something was left behind; ``report`` has it as data.

    End it in the test or in its fixture, or ignore it with a reason: each leak's message says how.

    .. versionadded:: 0.1
    """

    def __init__(self, report: Report, unused: Iterable[str] = ()) -> None:
        self._unused = tuple(unused)
        super().__init__("\n".join((str(report), *(f"unused: {each}" for each in self._unused))))
        self.report = report

    def __reduce__(self) -> tuple[type[LeaksFound], tuple[Report, tuple[str, ...]]]:
        # By default an exception is recreated from its message, as when a process pool returns it.
        return type(self), (self.report, self._unused)


class InvalidTypeError(OtelLeaksError, TypeError):
    """
    An argument or option has the wrong type, or its name is unknown.

    .. versionadded:: 0.1
    """


class InvalidValueError(OtelLeaksError, ValueError):
    """
    An argument or option is out of its range, or has the wrong form.

    .. versionadded:: 0.1
    """


class IgnoreSyntaxError(InvalidValueError):
    """
    A text is not a list of ignores, or names an unknown one; the message lists the known ones.

    .. versionadded:: 0.1
    """


class BaselineError(InvalidValueError):
    """
    The file of ``--leaks-baseline`` can't be read; write it again with --leaks-baseline-update.

    .. versionadded:: 0.1
    """


class FingerprintSchemeError(InvalidValueError):
    """
    A fingerprint was written by a version that computes fingerprints differently.

    It would match nothing here. Copy it again from a message of this version.

    .. versionadded:: 0.1
    """


class CensusError(OtelLeaksError, RuntimeError):
    """
    Objects of some kind can't be read on this Python, which in a test would hide leaks.

    Please report it with your Python version.

    .. versionadded:: 0.1
    """


class NoDaemonsError(OtelLeaksError, RuntimeError):
    """
    The interpreter has no daemon threads: it is an isolated subinterpreter.

    .. versionadded:: 0.1
    """


class UnknownExampleError(InvalidValueError):
    """
    There is no such example, file or folder; the message lists the existing ones.

    .. versionadded:: 0.1
    """


class FilesDifferError(OtelLeaksError, FileExistsError):
    """
    Files with different content would be overwritten; ``paths`` lists them.

    .. versionadded:: 0.1
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(", ".join(map(str, paths)))
        self.paths = tuple(paths)

    def __reduce__(self) -> tuple[type[FilesDifferError], tuple[tuple[Path, ...]]]:
        return type(self), (self.paths,)


class UnknownProgramError(InvalidValueError):
    """
    There is no such script and no such command to run.

    .. versionadded:: 0.1
    """


class NoPortError(OtelLeaksError, OSError):
    """
    There is no free port on this machine to listen on.

    .. versionadded:: 0.1
    """


class AttachError(OtelLeaksError, RuntimeError):
    """
    A process can't be inspected; the text says why, and what to do.

    .. versionadded:: 0.1
    """


class ReportFileError(InvalidValueError):
    """
    A file is not a readable report; the text names the supported formats.

    .. versionadded:: 0.1
    """


class UnusedIgnoreWarning(UserWarning):
    """
    An ignore hid nothing: its leak has been fixed, or has been renamed.

    Remove it, or correct its pattern.

    .. versionadded:: 0.1
    """
