"""``otel-leaks demo``: a small leaking web service, caught while you watch."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys

from otel_leaks.cli.refusal import refuse

__all__ = ["add"]

_NEEDS = ("rich", "starlette", "uvicorn")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the shell's entry point."""
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
    demo.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        return refuse(f"otel-leaks demo needs {', '.join(missing)}: pip install 'otel-leaks[view]'")
    from otel_leaks.demo.run import TASK_LIMIT, run
    from otel_leaks.viewer.terminal import Screen

    with Screen(sys.stdout) as screen:
        return run(
            seconds=options.seconds,
            task_limit=TASK_LIMIT if options.limit is None else options.limit,
            screen=screen,
        )


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
