"""
A program beside another library, which is set up before otel-leaks or after it.

    neighbor.py NAME before|after

What comes first comes before the rest of the program is imported, too: some libraries import
modules of Python's anew.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import neighbors  # type: ignore[import-not-found]  # It lies beside, where the program runs.


def main(name: str, order: str) -> None:
    run: Any = getattr(neighbors, name)() if order == "before" else None
    import watched  # type: ignore[import-not-found]

    watched.note_our_log()
    watched.instrument_in_code()
    if order == "after":
        run = getattr(neighbors, name)()
    import asyncio

    import neighbor_life as life  # type: ignore[import-not-found]

    found = life.life_of_greenlets() if run == "greenlets" else (run or asyncio.run)(life.life())
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
