"""Writes the tables of docs/field-report.md from the results, which a person has judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from field.suites import SUITES, Suite
from reliability.environment import PROJECT
from reliability.results import cell, with_table

__all__ = ["PAGE", "RESULTS", "page_with_tables", "results", "write_page"]

PAGE = PROJECT / "docs" / "field-report.md"
RESULTS = PROJECT / "tests" / "field" / "results"

Result = Mapping[str, Any]


def results() -> list[tuple[Suite, Result]]:
    """Return the suites that have been run, with what was seen."""
    files = [(suite, RESULTS / f"{suite.name}.json") for suite in SUITES]
    return [(suite, json.loads(file.read_text("utf-8"))) for suite, file in files if file.exists()]


def write_page() -> None:
    """Write the tables into the page."""
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8")), encoding="utf-8")


def page_with_tables(page: str) -> str:
    """Return the page with the tables that the results make."""
    for name, rows in (("Suites", _suites), ("Leaks", _leaks), ("Left out", _left_out)):
        page = with_table(page, name, "".join(f"| {' | '.join(row)} |\n" for row in rows()))
    return page


def _suites() -> Iterator[tuple[str, ...]]:
    yield "suite", "tests", "without otel-leaks", "differing", "CPU", "ratio", "reported", "false"
    yield ("---", "--:", "---", "--:", "--:", "--:", "--:", "--:")
    total: list[Any] = [0, 0, 0.0, 0.0, 0, 0]
    for suite, seen in results():
        without, warn = (min(seen["cpu_s"][mode]) for mode in ("without", "warn"))
        false = sum(site["is_real"] is False for site in seen["sites"])
        yield (
            f"{suite.name} {seen['version']}",
            f"{seen['tests']:,}",
            cell(_outcomes(seen["outcomes"])),
            str(len(seen["differing"])),
            f"{without:.0f} s, {warn:.0f} s",
            f"{warn / without:.2f}",
            str(len(seen["sites"])),
            str(false),
        )
        row = (seen["tests"], len(seen["differing"]), without, warn, len(seen["sites"]), false)
        total = [a + b for a, b in zip(total, row, strict=True)]
    tests, differing, without, warn, sites, false = total
    yield (
        *("**all**", f"**{tests:,}**", "", f"**{differing}**"),
        *(f"**{without:.0f} s, {warn:.0f} s**", f"**{warn / (without or 1):.2f}**"),
        *(f"**{sites}**", f"**{false}**"),
    )


def _outcomes(counts: Mapping[str, int]) -> str:
    """Write outcomes as pytest does; what fails there fails without otel-leaks."""
    found: dict[str, int] = {}
    for outcome, count in counts.items():
        word = next(
            (
                word
                for word in ("error", "failed", "xfailed", "xpassed", "skipped")
                if word in outcome.replace("setup failed", "error").split()
            ),
            "passed",
        )
        found[word] = found.get(word, 0) + count
    return ", ".join(f"{count:,} {word}" for word, count in found.items())


def _leaks() -> Iterator[tuple[str, ...]]:
    yield "suite", "reported", "in", "verdict"
    yield ("---",) * 4
    for suite, seen in results():
        for site in seen["sites"]:
            verdict = {True: "real", False: "**false alarm**", None: "**not judged**"}
            others = site["tests"] - 1
            where = f"`{site['in'][0]}`" + (f" and {others:,} more" if others else "")
            kind = site["kind"].replace("_", " ").removeprefix("asyncio ")
            yield (
                suite.name,
                cell(f"{kind} `{site['function']}`"),
                cell(where),
                cell(f"{verdict[site['is_real']]}: {site['why']}"),
            )


def _left_out() -> Iterator[tuple[str, ...]]:
    yield "suite", "arguments of pytest", "left out"
    yield ("---",) * 3
    for suite, _ in results():
        yield suite.name, cell(f"`{' '.join(suite.arguments)}`"), cell(suite.left_out or "nothing")
