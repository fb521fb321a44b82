"""
The errors and warnings of this package.

Each also derives from the built-in that a caller would expect.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_leaks.testing.report import Report

__all__ = ["AttachError", "LeaksFound", "ReportFileError", "UnusedIgnoreWarning"]


class LeaksFound(AssertionError):  # noqa: N818 - reads as what happened, as goleak says it
    """Something was left behind; ``report`` has it as data."""

    def __init__(self, report: Report, unused: Iterable[str] = ()) -> None:
        super().__init__("\n".join((str(report), *(f"unused: {each}" for each in unused))))
        self.report = report


class AttachError(RuntimeError):
    """
    A process can't be looked into; the text says why, and what to do.

    .. versionadded:: 0.1
    """


class ReportFileError(ValueError):
    """
    A file is no report that can be read; the text says which forms can.

    .. versionadded:: 0.1
    """


class UnusedIgnoreWarning(UserWarning):
    """An ignore hid nothing: what it was for is mended, or is called otherwise now."""
