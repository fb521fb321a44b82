"""Leaks as GitHub annotations beside the code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from otel_leaks.report.formats import Leak
from otel_leaks.report.texts import printable


def write(leaks: Sequence[Leak], *, fails: bool) -> str:
    """Write a line for each site."""
    mode = "fail" if fails else "warn"
    return "\n".join(annotation(each["in"], site, mode) for each in leaks for site in each["sites"])


def annotation(label: str, site: Mapping[str, Any], mode: str) -> str:
    """Write a leak as a GitHub annotation."""
    level = "error" if mode == "fail" else "warning"
    stack = (site["sample"] or {}).get("stack")
    where = site["origin"] or (stack[0] if stack else None)
    place = ""
    if where is not None:
        place = f"file={_escaped(_in_repository(where['file']))},line={where['line']},"
    what = f"{site['count']} {site['kind']} {site['functions'][0]}"
    return f"::{level} {place}title={_escaped(f'leak in {label}')}::{_escaped(what, ends='')}"


def _in_repository(file: str) -> str:
    try:
        path = os.path.relpath(file, os.environ.get("GITHUB_WORKSPACE") or Path.cwd())
    except ValueError:  # Another drive.
        return file
    return path.replace(os.sep, "/")


def _escaped(text: str, *, ends: str = ":,") -> str:
    """Escape text for a workflow command; *ends* are the characters that end a property's value."""
    for each in "%\r\n" + ends:
        text = text.replace(each, f"%{ord(each):02X}")
    return printable(text)
