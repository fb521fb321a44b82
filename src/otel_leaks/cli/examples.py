"""``otel-leaks examples``: the configurations that come with the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from otel_leaks import shipped
from otel_leaks.cli.refusal import refuse
from otel_leaks.errors import FilesDifferError, UnknownExampleError

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    examples = commands.add_parser(
        "examples",
        help="list or write the configurations for collectors and backends",
        description=(
            "List the configurations, rules and dashboards that come with the package, print "
            "one, or write them into a folder."
        ),
        epilog="Files that are there and differ are never overwritten without --force.",
    )
    examples.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a file, prometheus/rules.yaml for one, or with --to also a folder; "
        "left out: all of them",
    )
    examples.add_argument("--to", metavar="DIR", help="write below this folder")
    examples.add_argument("--force", action="store_true", help="also over files of DIR that differ")
    examples.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.force and options.to is None:
        return refuse("otel-leaks examples: --force needs --to DIR, the folder to write below")
    try:
        chosen = shipped.names() if options.name is None else shipped.within(options.name)
    except UnknownExampleError as error:
        return refuse(f"otel-leaks examples: {error}")
    if options.to is not None:
        return _write(chosen, Path(options.to), force=options.force)
    if options.name is None:
        width = max(map(len, chosen))
        for name in chosen:
            print(f"{name:{width}}  {shipped.DESCRIPTIONS[name]}")
    elif len(chosen) > 1:
        return refuse(
            f"otel-leaks examples: {options.name!r} is a folder of {', '.join(chosen)}; "
            f"name one of them, or write them with --to DIR"
        )
    else:
        # As bytes: the output is the exact file, even where the console has other line ends.
        sys.stdout.flush()
        sys.stdout.buffer.write(shipped.read(chosen[0]))
        sys.stdout.buffer.flush()
    return 0


def _write(chosen: Sequence[str], to: Path, *, force: bool) -> int:
    try:
        written = shipped.write(chosen, to, force=force)
    except FilesDifferError as error:
        differ = "differs" if len(error.paths) == 1 else "differ"
        return refuse(
            f"otel-leaks examples: {error} would be overwritten, and {differ} from what is "
            "shipped, so nothing was written; add --force to overwrite, or choose another folder"
        )
    except OSError as error:
        return refuse(f"otel-leaks examples: {error}; choose another folder with --to DIR")
    for path in written:
        print(f"wrote {path}")
    if len(written) < len(chosen):
        print(f"{len(chosen) - len(written)} of {len(chosen)} were there already, and are the same")
    return 0
