"""
Runs one program in the environment of a library, and prints what it leaves as JSON.

    python run.py PROGRAM
"""

import asyncio
import contextlib
import inspect
import json
import os
import runpy
import sys
import warnings
from pathlib import Path

from otel_leaks.report.hints import hint
from otel_leaks.testing import LeaksFound, verify_none


def main() -> None:
    path = Path(__file__).parent / "programs" / f"{sys.argv[1]}.py"
    sys.path.insert(0, str(path.parent))
    program = runpy.run_path(str(path))
    found = []

    @contextlib.contextmanager
    def check():
        try:
            with warnings.catch_warnings(), verify_none():
                warnings.simplefilter("ignore")
                yield
        except LeaksFound as leaks:
            found.append(leaks.report)

    async def run_leak():
        for _ in range(program.get("BEFORE", 0)):
            await program["leak"]()
        try:
            async with verify_none():
                await program["leak"]()
        except LeaksFound as leaks:
            found.append(leaks.report)

    if "look" in program:
        asyncio.run(program["look"](check))
    elif inspect.iscoroutinefunction(program["leak"]):
        asyncio.run(run_leak())
    else:
        with check():
            program["leak"]()
    sites = [
        {"kind": site.kind, "functions": site.functions, "count": site.count, "hint": hint(site)}
        for report in found
        for site in report
    ]
    print(json.dumps(sites), flush=True)
    os._exit(0)  # What it left may keep the interpreter from ending.


if __name__ == "__main__":
    main()
