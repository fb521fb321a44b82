"""
The door from the shell: ``otel-leaks``.

Importing this module is cheap: what a command needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from otel_leaks import __version__

__all__ = ["main"]

_NEEDS = ("rich", "starlette", "uvicorn")
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv: Without the program's name; None for those of the process.

    Returns:
        The exit status: 0 for success, 1 when a command did not find what it looks for,
        2 for a wrong call or a missing extra, 130 after Ctrl-C.

    Raises:
        SystemExit: argparse's own, after ``--help``, ``--version`` and a wrong call.
    """
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Who read has left (`| head`). Nothing more may be written, also not on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _demo(options: argparse.Namespace) -> int:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        return _refuse(
            f"otel-leaks demo needs {', '.join(missing)}: pip install 'otel-leaks[view]'"
        )
    from otel_leaks.demo.run import TASK_LIMIT, run
    from otel_leaks.viewer.terminal import Screen

    with Screen(sys.stdout) as screen:
        return run(
            seconds=options.seconds,
            task_limit=TASK_LIMIT if options.limit is None else options.limit,
            screen=screen,
        )


def _examples(options: argparse.Namespace) -> int:
    from otel_leaks import shipped
    from otel_leaks.errors import UnknownExampleError

    if options.force and options.to is None:
        return _refuse("otel-leaks examples: --force needs --to DIR, the folder to write below")
    try:
        chosen = shipped.names() if options.name is None else shipped.within(options.name)
    except UnknownExampleError as error:
        return _refuse(f"otel-leaks examples: {error}")
    if options.to is not None:
        return _write(chosen, Path(options.to), force=options.force)
    if options.name is None:
        width = max(map(len, chosen))
        for name in chosen:
            print(f"{name:{width}}  {shipped.DESCRIPTIONS[name]}")
    elif len(chosen) > 1:
        return _refuse(
            f"otel-leaks examples: {options.name!r} is a folder of {', '.join(chosen)}; "
            f"name one of them, or write them with --to DIR"
        )
    else:
        # As bytes: what comes out is the file, also where a console has other line ends.
        sys.stdout.flush()
        sys.stdout.buffer.write(shipped.read(chosen[0]))
        sys.stdout.buffer.flush()
    return 0


def _write(chosen: Sequence[str], to: Path, *, force: bool) -> int:
    from otel_leaks import shipped
    from otel_leaks.errors import FilesDifferError

    try:
        written = shipped.write(chosen, to, force=force)
    except FilesDifferError as error:
        differ = "differs" if len(error.paths) == 1 else "differ"
        return _refuse(
            f"otel-leaks examples: {error} would be overwritten, and {differ} from what is "
            "shipped, so nothing was written; add --force to overwrite, or choose another folder"
        )
    except OSError as error:
        return _refuse(f"otel-leaks examples: {error}; choose another folder with --to DIR")
    for path in written:
        print(f"wrote {path}")
    if len(written) < len(chosen):
        print(f"{len(chosen) - len(written)} of {len(chosen)} were there already, and are the same")
    return 0


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-leaks",
        description="Find leaked threads and asyncio tasks, in production with OpenTelemetry.",
    )
    parser.add_argument("--version", action="version", version=f"otel-leaks {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="watch a small leaking web service being caught",
        description=(
            "Start a small web service with a leak, send it requests, receive its "
            "OpenTelemetry, and show the leak when it is detected. Needs nothing else, and "
            "leaves nothing behind."
        ),
        epilog="Exit status: 0 when the leak was caught, 1 when not.",
    )
    demo.add_argument(
        "--seconds",
        type=_seconds,
        default=30.0,
        metavar="N",
        help="watch for at most N seconds (default: 30); it ends when the leak is caught",
    )
    # For the tests: so high that nothing is caught.
    demo.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    demo.set_defaults(run=_demo)
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
    examples.set_defaults(run=_examples)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds > 0, got {text!r}; leave it out for 30"
        )
    return seconds
