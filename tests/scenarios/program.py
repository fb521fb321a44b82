"""
Runs one scenario in this process, through each entry point of ``verify_none``.

    python -W error -m scenarios.program leaking a_thread_that_waits

Prints a line of JSON: what each reported, as pairs of a site and a text.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otel_leaks.testing import LeaksFound, verify_none
from scenarios import scenario
from scenarios.scenario import Scenario


def with_block(body: Callable[..., Any], *args: Any) -> None:
    with verify_none():
        body(*args)


def decorated(body: Callable[..., Any], *args: Any) -> None:
    verify_none()(body)(*args)


def async_with_block(body: Callable[..., Any], *args: Any) -> None:
    async def main() -> None:
        try:
            async with verify_none():
                await body(*args)
        finally:
            scenario.release()  # The end of a run waits for the jobs of its executor.

    scenario.run(main())


def async_decorated(body: Callable[..., Any], *args: Any) -> None:
    async def main() -> None:
        try:
            await verify_none()(body)(*args)
        finally:
            scenario.release()

    scenario.run(main())


def at(entry_point: Callable[..., None], each: Scenario) -> dict[str, Any]:
    found: collections.Counter[str] = collections.Counter()
    files: set[str] = set()
    text = ""
    with each.given() if each.given is not None else contextlib.nullcontext() as given:
        try:
            entry_point(each.body, *([given] if each.given is not None else []))
        except LeaksFound as error:
            text = str(error)
            for site in error.report:
                began = site.origin.function if site.origin is not None else "?"
                found[f"{site.kind} {began}"] += site.count
                files.add(Path(site.origin.file).name if site.origin is not None else "?")
    return {"found": dict(found), "files": sorted(files), "text": text}


def main(module: str, name: str) -> None:
    scenarios: list[Scenario] = importlib.import_module(f"scenarios.{module}").SCENARIOS
    each = next(each for each in scenarios if each.name == name)
    entry_points = (async_with_block, async_decorated) if each.is_async else (with_block, decorated)
    print(json.dumps([at(entry_point, each) for entry_point in entry_points]))
    sys.stdout.flush()
    scenario.clear_up()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
