"""
The command line: ``otel-leaks``.

Importing this module is cheap: each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from otel_leaks import __version__
from otel_leaks.cli import demo, examples, ps, report, run, view

__all__ = ["main"]

COMMANDS: tuple[Callable[[argparse._SubParsersAction[argparse.ArgumentParser]], None], ...] = (
    demo.add,
    run.add,
    view.add,
    ps.add,
    report.add,
    examples.add,
)
"""Functions that each add one command, in the order of ``otel-leaks --help``."""

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv: The arguments without the program's name; None for those of the process.

    Returns:
        The exit status: 0 for success, 1 if a command did not find what it looks for,
        2 for a usage error or a missing extra, 130 after Ctrl-C.

    Raises:
        SystemExit: Raised by argparse after ``--help``, ``--version`` and a usage error.
    """
    options = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`). Nothing more may be written, not even on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-leaks",
        description="Find leaked threads and asyncio tasks, in production with OpenTelemetry.",
    )
    parser.add_argument("--version", action="version", version=f"otel-leaks {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    return parser
