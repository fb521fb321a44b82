"""
Text from outside the package, made safe to leave it.

Names of files, functions, threads and spans are whatever the application made of them: they may
contain line breaks, terminal escapes, bytes that are not UTF-8, or four kilobytes. Each
function here returns one line of valid UTF-8 of bounded length.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

__all__ = [
    "MAX_CHARS",
    "MAX_NAME_BYTES",
    "between",
    "head",
    "name_text",
    "plain",
    "printable",
    "tail",
]

MAX_CHARS = 1024
"""Maximum for any string but a stack."""
MAX_NAME_BYTES = 384
"""Maximum for a function's name, as UTF-8: 100 series of metrics then stay under 64 KiB."""

CUT = "..."
"""Replaces omitted text; ASCII, for logs whose encoding has nothing else."""

SHORT = MAX_NAME_BYTES // 4
"""Characters that always fit into a name."""


MAX_KNOWN = 4096
"""Characters whose written form is cached."""


class _Written(dict[int, str]):
    """The written form of each character, for ``str.translate``, which looks it up in C."""

    def __missing__(self, code: int) -> str:
        each = chr(code)
        written = each if each.isprintable() else each.encode("unicode_escape").decode()
        if len(self) < MAX_KNOWN:
            self[code] = written
        return written


_WRITTEN = _Written()


def plain(text: object) -> str:
    """Return *text* as a plain str, without the application's methods; empty for other types."""
    if type(text) is str:
        return text
    return str.__str__(text) if issubclass(type(text), str) else ""


def printable(text: str) -> str:
    r"""
    Write characters that are not printable as escapes, in one line of valid UTF-8.

    These are line breaks (U+2028, U+2029, NEL, VT and FF included), all other control
    characters, the marks that reverse the direction of text, and lone surrogates, into which
    ``os.fsdecode`` turns bytes that are not UTF-8: ``\n``, ``\x1b``, ``\u202e``, ``\udce9``.
    """
    text = plain(text)
    return text if text.isprintable() else text.translate(_WRITTEN)


def head(text: str, most: int = MAX_CHARS) -> str:
    """Return *text* printable, only the first *most* characters if it is longer."""
    text = printable(plain(text)[: most + 1])
    return text if len(text) <= most else text[: max(most - len(CUT), 0)] + CUT[:most]


def tail(text: str, most: int = MAX_CHARS) -> str:
    """Return *text* printable, only the last *most* characters if it is longer: for paths."""
    text = printable(plain(text)[-most - 1 :])
    room = max(most - len(CUT), 0)
    return text if len(text) <= most else CUT[:most] + text[len(text) - room :]


def between(text: str, most: int = MAX_CHARS) -> str:
    """Return *text* printable, only its two ends if it is longer than *most* characters."""
    text = plain(text)
    if len(text) > 2 * most:
        text = text[:most] + text[-most:]
    text = printable(text)
    if len(text) <= most:
        return text
    room = max(most - len(CUT), 0)
    first = room // 2
    return text[:first] + CUT[:most] + text[len(text) - (room - first) :]


def name_text(name: str, most: int = MAX_NAME_BYTES) -> str:
    """
    Return the name of a function, printable and bounded.

    Args:
        name: Qualified, with its module.
        most: Bytes of UTF-8, and so characters too, >= 1.

    Returns:
        The name, or its two ends with 12 hex digits of its hash between them: two long
        names stay different, and each is the same in every process.
    """
    name = plain(name)
    if len(name) <= min(SHORT, most // 4) and name.isprintable():
        return name
    return _name_text(name, most)


@lru_cache(maxsize=1024)
def _name_text(name: str, most: int) -> str:
    text = printable(name) if len(name) <= most else name
    if len(text) <= most and len(text.encode()) <= most:
        return text
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    room = most - len(mark) - 2 * len(CUT)
    if room < 2:
        return mark[:most]
    first, last = printable(name[:room]).encode(), printable(name[-room:]).encode()
    # A character that was cut in two is left out.
    start = first[: room // 2].decode("utf-8", "ignore")
    end = last[-(room - room // 2) :].decode("utf-8", "ignore")
    return f"{start}{CUT}{mark}{CUT}{end}"
