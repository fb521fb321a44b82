"""
What was received, as text for a terminal or a pipe.

Pure but for ``Screen``: frozen values in, lines out. A line is never wider than it is
told to be, so that a picture can be drawn over the one before.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from otel_leaks.viewer.received import Counted, Counts, Detected, Place, Site

__all__ = ["Scene", "Screen", "Style", "explain", "picture", "status", "style_for"]

FUNCTIONS = 3
"""Functions of a kind that a picture shows."""
SPARKS = 16
"""Readings that a sparkline shows."""
BAR = 30
"""Columns of a bar, where there is room."""
SHORT_BAR = 15
"""Columns of a bar in a line of text."""
NARROWEST = 60
"""Columns below which nothing is drawn: it would not fit."""

_NOUNS: Mapping[str, str] = {
    "asyncio_task": "asyncio task",
    "thread": "thread",
    "destroyed_task": "asyncio task",
}
_STATES: Mapping[str, str] = {
    "asyncio_task": "pending",
    "thread": "alive",
    "destroyed_task": "destroyed while pending",
}

Tint = Literal["bold", "dim", "red", "yellow", "green"]
_SGR: Mapping[Tint, str] = {
    "bold": "1",
    "dim": "2",
    "red": "1;31",
    "yellow": "33",
    "green": "32",
}


@dataclass(frozen=True, slots=True)
class Style:
    """What the reader's terminal can show."""

    color: bool = False
    unicode: bool = True

    def paint(self, text: str, tint: Tint | None) -> str:
        """Return *text* in a tint, where there is color."""
        return f"\x1b[{_SGR[tint]}m{text}\x1b[0m" if self.color and tint is not None else text

    @property
    def marks(self) -> tuple[str, str, str, str]:
        """Full and empty part of a bar, ellipsis, step into a call."""
        return ("█", "░", "…", "└ ") if self.unicode else ("#", ".", "...", "\\ ")

    @property
    def sparks(self) -> str:
        """The levels of a sparkline, the lowest first."""
        return "▁▂▃▄▅▆▇█" if self.unicode else "_.-=+*%#"


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a picture shows."""

    title: str
    note: str
    """What the application did meanwhile, in some words."""
    elapsed_s: float
    history: tuple[Counts, ...] = ()
    """Oldest first."""


def style_for(stream: TextIO, environ: Mapping[str, str]) -> Style:
    """Return the style of a stream: color on a terminal only, and never under NO_COLOR."""
    try:
        "█░▁…└".encode(stream.encoding or "ascii")
        unicode = True
    except UnicodeEncodeError:
        unicode = False
    return Style(color=_is_live(stream, environ) and not environ.get("NO_COLOR"), unicode=unicode)


def picture(scene: Scene, style: Style, columns: int) -> tuple[str, ...]:
    """
    Draw the counts of now, how they came about, and their limits.

    Args:
        scene: What to show.
        style: What the terminal can.
        columns: Its width, >= ``NARROWEST``; the lines are narrower than that.
    """
    width = columns - 1
    elapsed = f"{scene.elapsed_s:.0f} s"
    title = _cut(scene.title, width - len(elapsed) - 2, style)
    gap = " " * (width - len(title) - len(elapsed))
    lines = [style.paint(title, "bold") + gap + style.paint(elapsed, "dim"), scene.note]
    if scene.history:
        for counted in scene.history[-1].counted:
            total = f"{_NOUNS[counted.kind] + 's':<13}{counted.count:>5}"
            total += _limited(counted, style, min(BAR, width - 44))
            lines += ["", total, *_functions(counted, scene.history, style, width)]
    return tuple(lines)


def status(scene: Scene, style: Style) -> str:
    """Say in one line what a picture says in many."""
    parts = [f"{scene.elapsed_s:3.0f} s"]
    if scene.history:
        parts += [
            f"{_NOUNS[each.kind]}s {each.count:>4}{_limited(each, style, SHORT_BAR)}"
            for each in scene.history[-1].counted
        ]
    parts.append(scene.note)
    return "   ".join(parts)


def explain(detected: Detected, style: Style, columns: int | None) -> tuple[str, ...]:
    """
    Tell of a detection with its largest site.

    Args:
        detected: As it was received.
        style: What the terminal can.
        columns: Its width, None for as wide as it gets: paths are not shortened then.
    """
    width = columns - 1 if columns is not None else None
    lines = [style.paint("LEAK DETECTED", "red"), *_wrapped(detected.message, width), ""]
    if not detected.sites:
        return tuple(lines[:-1])
    site = detected.sites[0]
    noun = _counted_noun(detected.kind, site.count)
    state = _STATES.get(detected.kind, "alive")
    if detected.count > site.count:
        noun += f", of {detected.count} {state} in all"
    rows = [("what", noun), ("function", style.paint(site.function, "bold"))]
    if site.operation:
        rows.append(("request", style.paint(site.operation, "bold")))
    is_destroyed = detected.kind == "destroyed_task"
    if not is_destroyed:
        rows.append(("oldest", f"{state} for at least {_duration(site.age_s)}"))
    if site.awaited is not None:
        awaited = "other code, which waits as well" if site.awaited else "nothing"
        rows.append(("awaited by", awaited))
    if site.origin is not None:
        room = width - 2 - _LABEL - len(site.origin.function) - 2 if width is not None else None
        rows.append(("began in", f"{site.origin.function}  {_where(site.origin, room, style)}"))
    label = "coroutine" if is_destroyed else "waits at"
    for line in _stack(site, style, width):
        rows.append((label, line))
        label = ""
    if site.hint:
        room = None if width is None else max(width - 2 - _LABEL, 20)
        first, *others = _wrapped(site.hint, room)
        rows += [("hint", first), *(("", line) for line in others)]
    rows.append(("fingerprint", f"{site.fingerprint}, the same on every host"))
    lines += [f"  {style.paint(label.ljust(_LABEL), 'dim')}{text}" for label, text in rows]
    return tuple(lines)


_LABEL = len("fingerprint") + 2


def _limited(counted: Counted, style: Style, room: int) -> str:
    """Draw a count beside its limit."""
    if counted.limit is None:
        return ""
    full, empty, _, _ = style.marks
    filled = min(room, round(room * counted.count / max(counted.limit, 1)))
    tint: Tint = "green"
    if _is_over(counted):
        tint = "red"
    elif counted.count > 0.6 * counted.limit:
        tint = "yellow"
    bar = style.paint(full * filled, tint) + style.paint(empty * (room - filled), "dim")
    said = f"limit {counted.limit}"
    if _is_over(counted):
        said = style.paint(f"over the limit of {counted.limit}", "red")
    return f"  {bar}  {said}"


def _functions(counted: Counted, history: Sequence[Counts], style: Style, width: int) -> list[str]:
    before = [
        dict(known.functions) if (known := each.of(counted.kind)) is not None else {}
        for each in history[-SPARKS:]
    ]
    # The least that fills a sparkline: one thing more or less is no landscape.
    most = max([10, *(count for each in before for count in each.values())])
    # The function that most of them run stands out when they are too many.
    worst = next(
        (f for f, n in counted.functions if _is_over(counted) and 2 * n > counted.count), None
    )
    lines = []
    for function, count in counted.functions[:FUNCTIONS]:
        sparks = _sparkline([each.get(function, 0) for each in before], most, style)
        line = f"{count:>18}  {sparks.ljust(SPARKS)}  {_cut(function, width - 38, style)}"
        lines.append(style.paint(line, "red" if function == worst else None))
    others = counted.functions[FUNCTIONS:]
    if others:
        count = sum(number for _, number in others)
        what = "one other" if len(others) == 1 else f"{len(others)} others"
        lines.append(f"{count:>18}  {' ' * SPARKS}  in {what}")
    return lines


def _sparkline(readings: Sequence[int], most: int, style: Style) -> str:
    top = len(style.sparks) - 1
    return "".join(style.sparks[round(top * each / most)] for each in readings)


def _stack(site: Site, style: Style, width: int | None) -> list[str]:
    """Write one level a line, indented by its depth, what it calls below it."""
    step = style.marks[3]
    names = [
        ("  " * (depth - 1) + step if depth else "") + place.function
        for depth, place in enumerate(site.stack)
    ]
    column = max(map(len, names), default=0) + 2
    room = None if width is None else width - 2 - _LABEL - column
    return [
        name.ljust(column) + style.paint(_where(place, room, style), "dim")
        for name, place in zip(names, site.stack, strict=True)
    ]


def _where(place: Place, room: int | None, style: Style) -> str:
    where = f"{place.file}:{place.line}"
    return where if room is None else _cut(where, room, style)


def _is_over(counted: Counted) -> bool:
    return counted.limit is not None and counted.count > counted.limit


def _counted_noun(kind: str, count: int) -> str:
    return f"{count} {_NOUNS.get(kind, kind)}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _cut(text: str, room: int, style: Style) -> str:
    """Keep the end of *text*, which says most of a path or a qualified name."""
    room = max(room, 12)
    if len(text) <= room:
        return text
    ellipsis = style.marks[2]
    return ellipsis + text[len(ellipsis) - room :]


def _is_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Say whether what stands on *stream* can be drawn over."""
    if not stream.isatty() or environ.get("TERM") == "dumb":
        return False
    if shutil.get_terminal_size().columns < NARROWEST:
        return False
    # Older consoles of Windows print escape codes as they are.
    return sys.platform != "win32" or "WT_SESSION" in environ


class Screen:
    """
    Writes to a person: pictures in place on a terminal, plain lines elsewhere.

    Args:
        stream: Where to.
        environ: ``NO_COLOR`` and ``TERM`` are looked at.
    """

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._drawn = 0
        self.style = style_for(stream, environ)
        self.live = _is_live(stream, environ)
        """Whether pictures are drawn in place."""

    @property
    def columns(self) -> int | None:
        """Width of the terminal, None where there is none."""
        return shutil.get_terminal_size().columns if self.live else None

    def draw(self, scene: Scene) -> None:
        """Draw a picture over the last one; on no terminal, do nothing."""
        if not self.live:
            return
        size = shutil.get_terminal_size()
        if size.columns < NARROWEST:
            return
        # What has left the top of the terminal can't be drawn over.
        lines = picture(scene, self.style, size.columns)[: size.lines - 1]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write(up + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(lines)

    def write(self, *lines: str) -> None:
        """Write lines that stay."""
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._drawn = 0
