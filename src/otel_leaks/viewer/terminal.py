"""
Shows what was received as text, on a terminal or in a pipe.

Pure except for ``Screen``: frozen values in, Rich text out. Rich handles colors, NO_COLOR,
drawing in place, and consoles that are no terminal, dumb, narrow or old.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from otel_leaks.viewer.received import Counted, Counts, Detected, Place, Site

__all__ = ["ASCII", "UNICODE", "Marks", "Scene", "Screen", "explain", "picture", "status"]

FUNCTIONS = 3
"""Number of functions of a kind that a picture shows."""
SPARKS = 16
"""Number of readings that a sparkline shows."""
BAR = 30
"""Columns of a bar, if there is room."""
SHORT_BAR = 15
"""Columns of a bar in a line of text."""
NARROWEST = 60
"""Minimum of columns; on a narrower terminal nothing is drawn."""

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


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters used in a picture."""

    full: str
    """The filled part of a bar; ``empty`` is the rest."""
    empty: str
    ellipsis: str
    step: str
    """A step into a call."""
    sparks: str
    """The levels of a sparkline, the lowest first."""


UNICODE = Marks("█", "░", "…", "└ ", "▁▂▃▄▅▆▇█")
ASCII = Marks("#", ".", "...", "\\ ", "_.-=+*%#")


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a picture shows."""

    title: str
    note: str
    """What the application did meanwhile, in a few words."""
    elapsed_s: float
    history: tuple[Counts, ...] = ()
    """Oldest first."""


def picture(scene: Scene, marks: Marks, columns: int) -> Text:
    """
    Draw the current counts, their history and their limits.

    Args:
        scene: What to show.
        marks: The characters to draw with.
        columns: Width of the terminal, >= ``NARROWEST``; the lines are narrower than that.
    """
    width = columns - 1
    elapsed = f"{scene.elapsed_s:.0f} s"
    title = _cut(scene.title, width - len(elapsed) - 2, marks)
    gap = " " * (width - len(title) - len(elapsed))
    lines = [Text.assemble((title, "bold"), gap, (elapsed, "dim")), Text(scene.note)]
    if scene.history:
        for counted in scene.history[-1].counted:
            total = Text(f"{_NOUNS[counted.kind] + 's':<13}{counted.count:>5}")
            total.append_text(_limited(counted, marks, min(BAR, width - 44)))
            lines += [Text(), total, *_functions(counted, scene.history, marks, width)]
    return _joined(lines)


def status(scene: Scene, marks: Marks) -> Text:
    """Summarize in one line what a picture shows in many."""
    parts = [Text(f"{scene.elapsed_s:3.0f} s")]
    if scene.history:
        parts += [
            Text(f"{_NOUNS[each.kind]}s {each.count:>4}").append_text(
                _limited(each, marks, SHORT_BAR)
            )
            for each in scene.history[-1].counted
        ]
    parts.append(Text(scene.note))
    return Text("   ").join(parts)


def explain(detected: Detected, marks: Marks, columns: int | None) -> Text:
    """
    Describe a detection with its largest site.

    Args:
        detected: The detection as received.
        marks: The characters to draw with.
        columns: Width of the terminal; None for no limit, which leaves paths unshortened.
    """
    width = columns - 1 if columns is not None else None
    lines = [Text("LEAK DETECTED", "bold red"), *map(Text, _wrapped(detected.message, width))]
    if not detected.sites:
        return _joined(lines)
    lines.append(Text())
    for label, text in _rows(detected, detected.sites[0], marks, width):
        lines.append(Text.assemble("  ", (label.ljust(_LABEL), "dim"), text))
    return _joined(lines)


_LABEL = len("fingerprint") + 2


def _rows(
    detected: Detected, site: Site, marks: Marks, width: int | None
) -> list[tuple[str, str | Text]]:
    noun = _counted_noun(detected.kind, site.count)
    state = _STATES.get(detected.kind, "alive")
    if detected.count > site.count:
        noun += f", of {detected.count} {state} in all"
    rows: list[tuple[str, str | Text]] = [("what", noun), ("function", Text(site.function, "bold"))]
    if site.operation:
        rows.append(("request", Text(site.operation, "bold")))
    is_destroyed = detected.kind == "destroyed_task"
    if not is_destroyed:
        rows.append(("oldest", f"{state} for at least {_duration(site.age_s)}"))
    if site.awaited is not None:
        awaited = "other code, which waits as well" if site.awaited else "nothing"
        rows.append(("awaited by", awaited))
    if site.origin is not None:
        room = width - 2 - _LABEL - len(site.origin.function) - 2 if width is not None else None
        where = _where(site.origin, room, marks)
        rows.append(("created in", f"{site.origin.function}  {where}"))
    label = "coroutine" if is_destroyed else "waits at"
    for line in _stack(site, marks, width):
        rows.append((label, line))
        label = ""
    if site.hint:
        room = None if width is None else max(width - 2 - _LABEL, 20)
        first, *others = _wrapped(site.hint, room)
        rows += [("hint", first), *(("", line) for line in others)]
    rows.append(("fingerprint", f"{site.fingerprint}, the same on every host"))
    return rows


def _limited(counted: Counted, marks: Marks, room: int) -> Text:
    """Draw a count beside its limit."""
    if counted.limit is None:
        return Text()
    filled = min(room, round(room * counted.count / max(counted.limit, 1)))
    color = "green"
    if _is_over(counted):
        color = "bold red"
    elif counted.count > 0.6 * counted.limit:
        color = "yellow"
    said: tuple[str, str] = (f"limit {counted.limit}", "")
    if _is_over(counted):
        said = (f"over the limit of {counted.limit}", "bold red")
    bar = (marks.full * filled, color), (marks.empty * (room - filled), "dim")
    return Text.assemble("  ", *bar, "  ", said)


def _functions(counted: Counted, history: Sequence[Counts], marks: Marks, width: int) -> list[Text]:
    before = [
        dict(known.functions) if (known := each.of(counted.kind)) is not None else {}
        for each in history[-SPARKS:]
    ]
    # At least 10 for a full sparkline: one task more or less must not look like a mountain.
    most = max([10, *(count for each in before for count in each.values())])
    # If the count is over its limit, a function that most of them run is highlighted.
    worst = next(
        (f for f, n in counted.functions if _is_over(counted) and 2 * n > counted.count), None
    )
    lines = []
    for function, count in counted.functions[:FUNCTIONS]:
        sparks = _sparkline([each.get(function, 0) for each in before], most, marks)
        line = f"{count:>18}  {sparks.ljust(SPARKS)}  {_cut(function, width - 38, marks)}"
        lines.append(Text(line, "bold red" if function == worst else ""))
    others = counted.functions[FUNCTIONS:]
    if others:
        count = sum(number for _, number in others)
        what = "one other" if len(others) == 1 else f"{len(others)} others"
        lines.append(Text(f"{count:>18}  {' ' * SPARKS}  in {what}"))
    return lines


def _sparkline(readings: Sequence[int], most: int, marks: Marks) -> str:
    top = len(marks.sparks) - 1
    return "".join(marks.sparks[round(top * each / most)] for each in readings)


def _stack(site: Site, marks: Marks, width: int | None) -> list[Text]:
    """Return one line for each level, indented by its depth, each above the one that it calls."""
    names = [
        ("  " * (depth - 1) + marks.step if depth else "") + place.function
        for depth, place in enumerate(site.stack)
    ]
    column = max(map(len, names), default=0) + 2
    room = None if width is None else width - 2 - _LABEL - column
    return [
        Text.assemble(name.ljust(column), (_where(place, room, marks), "dim"))
        for name, place in zip(names, site.stack, strict=True)
    ]


def _where(place: Place, room: int | None, marks: Marks) -> str:
    where = f"{place.file}:{place.line}"
    return where if room is None else _cut(where, room, marks)


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


def _cut(text: str, room: int, marks: Marks) -> str:
    """Shorten *text* to its end, the most informative part of a path or a qualified name."""
    room = max(room, 12)
    if len(text) <= room:
        return text
    return marks.ellipsis + text[len(marks.ellipsis) - room :]


def _joined(lines: Sequence[Text]) -> Text:
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


class Screen:
    """
    Output for a person: pictures in place on a terminal, plain lines elsewhere.

    A context manager: on exit the last picture stays, with the cursor after it.

    Args:
        stream: The stream to write to.
        environ: ``NO_COLOR``, ``TERM``, ``COLUMNS`` and other variables that Rich reads.
    """

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._console = Console(
            file=stream, highlight=False, markup=False, emoji=False, _environ=environ
        )
        self._drawn: Live | None = None
        self.marks = ASCII if self._console.options.ascii_only else UNICODE
        self.live = (
            self._console.is_terminal
            and not self._console.is_dumb_terminal
            and self._console.width >= NARROWEST
        )
        """Whether pictures are drawn in place."""

    def __enter__(self) -> Screen:  # noqa: PYI034  (Self is of Python 3.11)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stay()

    @property
    def columns(self) -> int | None:
        """Width of the terminal, None if there is none."""
        return self._console.width if self.live else None

    def draw(self, scene: Scene) -> None:
        """Draw a picture over the last one; without a terminal, do nothing."""
        if not self.live or self._console.width < NARROWEST:
            return
        if self._drawn is None:
            self._drawn = Live(
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._drawn.start()
        self._drawn.update(picture(scene, self.marks, self._console.width), refresh=True)

    def write(self, *lines: str | Text) -> None:
        """Write lines that are not drawn over."""
        self._stay()
        for line in lines:
            self._console.print(line, soft_wrap=True)

    def _stay(self) -> None:
        drawn, self._drawn = self._drawn, None
        if drawn is not None:
            drawn.stop()
