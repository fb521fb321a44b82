"""Shared by the commands with a page: their options, and the lines that introduce the page."""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from otel_leaks.cli.refusal import refuse

if TYPE_CHECKING:
    from otel_leaks.viewer.desk import Desk

__all__ = ["add_options", "introduce", "lacks_extra", "port", "seconds"]

_NEEDS = ("rich", "starlette", "uvicorn")


def add_options(
    parser: argparse.ArgumentParser,
    *,
    http_port: int | None,
    lasts: str,
    default: str,
    seconds_type: Callable[[str], float] | None = None,
    browserless: str = "print the address, and open nothing",
) -> None:
    """
    Add the options of a page.

    Args:
        parser: The parser of the command.
        http_port: The default of ``--port``; None if it depends on the other options.
        lasts: What ends after ``--seconds``, for its help.
        default: What happens without ``--seconds``, for its help.
        seconds_type: Parses ``--seconds``, to raise messages of its own.
        browserless: What ``--no-browser`` does, for its help.
    """
    parser.add_argument(
        "--port",
        type=port,
        default=http_port,
        metavar="N",
        help="port of the page and of OTLP over HTTP (default: 4318); the next free one where it "
        "is taken",
    )
    parser.add_argument("--no-browser", action="store_true", help=browserless)
    parser.add_argument(
        "--seconds",
        type=seconds_type or seconds,
        metavar="N",
        help=f"{lasts} after N seconds; {default}",
    )


def lacks_extra(command: str) -> int | None:
    """Return the exit status if a command's extra is not installed, with a message; else None."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return refuse(
        f"otel-leaks {command} needs {', '.join(missing)}: pip install 'otel-leaks[view]'"
    )


def introduce(
    desk: Desk, *, wanted: int, grpc_wanted: int | None = None, say: Callable[[str], object]
) -> None:
    """Report the address of the page, and which ports were taken."""
    for line in _introduction(desk, wanted, grpc_wanted):
        say(line)


def _introduction(desk: Desk, wanted: int, grpc_wanted: int | None) -> Iterator[str]:
    http, grpc = desk.ports
    if wanted not in {0, http}:
        yield f"Port {wanted} is taken; using {http}."
    if grpc_wanted and grpc != grpc_wanted:
        yield f"Port {grpc_wanted} is taken; using {grpc} for gRPC."
    yield f"The page is at {desk.address}"


def port(text: str) -> int:
    """Parse a port, 0 for any free one."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(
            f"must be a port from 1 to 65535, or 0 for any free one, got {text!r}"
        )
    return number


def seconds(text: str, default: str = "the default") -> float:
    """Parse a number of seconds; *default* is the default, for the error message."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds > 0, got {text!r}; leave it out for {default}"
        )
    return number
