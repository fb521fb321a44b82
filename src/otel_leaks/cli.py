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
from collections.abc import Sequence

from otel_leaks import __version__

__all__ = ["main"]

_NEEDS = ("starlette", "uvicorn")
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
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"otel-leaks {options.command} needs {' and '.join(missing)}: "
            "pip install 'otel-leaks[view]'",
            file=sys.stderr,
        )
        return 2
    try:
        return _demo(options)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Who read has left (`| head`). Nothing more may be written, also not on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _demo(options: argparse.Namespace) -> int:
    from otel_leaks.demo.run import TASK_LIMIT, run
    from otel_leaks.viewer.terminal import Screen

    return run(
        seconds=options.seconds,
        task_limit=TASK_LIMIT if options.limit is None else options.limit,
        screen=Screen(sys.stdout),
    )


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
