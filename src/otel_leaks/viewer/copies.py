"""
Text to copy from the page: an ignore, a failing test, a report for a ticket.

Names come from an application and are not trusted, so each is placed where it can only be a name.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from datetime import datetime, timezone

from otel_leaks.viewer.arrivals import Process
from otel_leaks.viewer.received import Place, Site
from otel_leaks.viewer.store import Finding

__all__ = ["failing_test", "ignore_line", "markdown"]

_FINGERPRINT = re.compile(r"[0-9a-f]{1,64}")
_ASYNC = frozenset({"asyncio_task", "destroyed_task", "async_generator"})
_SPECIAL = re.compile(r"([\\`*_<>\[\]|~#])")


def ignore_line(site: Site) -> str:
    """Return the ignore for a site, empty if it has no fingerprint."""
    if _FINGERPRINT.fullmatch(site.fingerprint) is None:
        return ""
    return f'ignore_fingerprint("{site.fingerprint}", reason="...")'


def failing_test(kind: str, site: Site) -> str:
    """Return a test that fails as long as a site leaks, to be completed with how to reach it."""
    is_async = kind in _ASYNC
    name = _identifier(site.function)
    todo = [f"    # Do what creates {_comment(site.function)}."]
    if site.origin is not None:
        todo.append(f"    # It was created by {_comment(site.origin.function)}.")
    if site.operation:
        todo.append(f"    # It was left behind by {_comment(site.operation)}.")
    end = "then await what ends it" if is_async else "then do what ends it"
    todo.append(f'    raise NotImplementedError("reach {name} here, {end}")')
    test = f"def test_{name}_is_not_left_behind() -> None:"
    body = ["@verify_none()", test, *todo]
    if is_async:
        body = [test, "    asyncio.run(scenario())", "", "", "@verify_none()"]
        body += ["async def scenario() -> None:", *todo]
    lines = [
        f"# Fingerprint {_comment(site.fingerprint)}: while it leaks, verify_none() reports it.",
        *(("import asyncio", "") if is_async else ()),
        *("from otel_leaks.testing import verify_none", "", ""),
        *body,
    ]
    return "\n".join([*lines, ""])


def markdown(finding: Finding, process: Process) -> str:
    """Return a finding as Markdown, for a ticket."""
    detected = finding.whole.detected
    lines = [
        f"## {_escaped(detected.message or 'A leak')}",
        "",
        f"- evidence: {_code(detected.evidence)}, kind {_code(detected.kind)}",
        f"- count: {detected.count}"
        + (f", limit {detected.limit}" if detected.limit is not None else "")
        + f", peak {finding.peak}",
    ]
    if finding.opened_s:
        lines.append(f"- opened: {_time(finding.opened_s)}")
    if finding.ended is not None:
        lines.append(f"- ended: {_time(finding.ended.at_s)}")
    known = (("pid", process.pid), ("host", process.host), ("instance", process.instance))
    who = "".join(f", {word} {_code(value)}" for word, value in known if value)
    lines.append(f"- process: {_code(process.service)}{who}")
    for number, site in enumerate(detected.sites, 1):
        lines += ["", f"### {number}. {site.count} in {_code(site.function)}", "", *_of_site(site)]
    return "\n".join([*lines, ""])


def _of_site(site: Site) -> Iterator[str]:
    if site.operation:
        yield f"- request: {_code(site.operation)}"
    if site.origin is not None:
        yield f"- created by: {_place(site.origin)}"
    if site.application is not None:
        yield f"- waits in your code at: {_place(site.application)}"
    if site.awaited is not None:
        yield f"- awaited by: {'other code, which waits as well' if site.awaited else 'nothing'}"
    yield from (f"- {label}: {_escaped(text)}" for label, text in site.facts)
    yield f"- oldest: at least {site.age_s:.0f} s"
    if site.hint:
        yield f"- hint: {_escaped(site.hint)}"
    yield f"- fingerprint: {_code(site.fingerprint)}"
    if site.stack:
        text = "\n".join(
            f"{'  ' * depth}{place.function}  {place.file}:{place.line}"
            for depth, place in enumerate(site.stack)
        )
        fence = _fence(text, 3)
        yield from ("", f"{fence}text", text, fence)


def _place(place: Place) -> str:
    return f"{_code(place.function)}, {_code(f'{place.file}:{place.line}')}"


def _code(text: str) -> str:
    fence = _fence(text, 1)
    # Text that starts or ends with a backtick or a space needs padding.
    pad = " " if text[:1] in {"`", " "} or text[-1:] in {"`", " "} else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _comment(text: str) -> str:
    # Printable text has no line end, so it stays within the comment.
    return text if text.isprintable() else repr(text)


def _identifier(function: str) -> str:
    name = re.sub(r"\W+", "_", function.rpartition(".")[2], flags=re.ASCII).strip("_").lower()[:60]
    return name if name and not keyword.iskeyword(name) else f"leak_{name}".rstrip("_")


def _time(at_s: float) -> str:
    try:
        at = datetime.fromtimestamp(at_s, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return "unknown"  # The sender's time may be anything.
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
