"""``otel-leaks run``: runs your own program, instrumented, on the live page."""

from __future__ import annotations

import argparse
import os
import sys

from otel_leaks.cli import pages
from otel_leaks.cli.refusal import refuse

__all__ = ["add"]

_PORT = 4318
_SHOWN = 3
"""Limit of findings whose messages are repeated at the end."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    run = commands.add_parser(
        "run",
        usage="otel-leaks run [OPTIONS] [--] (SCRIPT.py | -m MODULE | COMMAND) [ARGS ...]",
        help="run your own program, instrumented, on the live page",
        description=(
            "Run a program as it is, and show on a live page what leaks in it and in all "
            "Python processes that it starts. Its output, its signals and its exit status are "
            "its own."
        ),
        epilog="Examples: otel-leaks run app.py; otel-leaks run --limit 50 uvicorn app:app",
    )
    pages.add_options(
        run, http_port=_PORT, lasts="end the program", default="without it, it runs to its end"
    )
    run.add_argument(
        "--limit", type=_limit, metavar="N", help="threads and asyncio tasks that are too many"
    )
    run.add_argument(
        "--origins",
        choices=("off", "threads", "all"),
        help="of what to note who created it (default: all)",
    )
    run.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, help="run a module, with its arguments"
    )
    run.add_argument("program", nargs=argparse.REMAINDER, help="script or command, with arguments")
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    is_module = options.module is not None
    words = list(options.module if is_module else options.program)
    if words[:1] == ["--"]:
        words = words[1:]
        if words[:1] == ["-m"]:
            is_module, words = True, words[1:]
    if not words:
        return refuse("otel-leaks run: name a script, -m MODULE, or a command")
    refused = pages.lacks_extra("run")
    if refused is not None:
        return refused
    from otel_leaks.cli import launch
    from otel_leaks.errors import UnknownProgramError
    from otel_leaks.viewer.desk import Desk, has_browser, open_browser

    try:
        command, name = launch.command_of(words, module=is_module)
    except UnknownProgramError as error:
        return refuse(f"otel-leaks run: {error}")
    launch.block_signals()
    try:
        desk = Desk(f"otel-leaks: {name}", port=options.port, program=" ".join(words))
    except OSError as error:
        return refuse(f"otel-leaks run: {error}")
    with desk:
        pages.introduce(desk, wanted=options.port, say=_say)
        if has_browser() and not options.no_browser:
            open_browser(desk.address)
        environ = launch.environment(
            os.environ, desk.http, name=name, limit=options.limit, origins=options.origins
        )
        status = launch.launch(command, environ, seconds=options.seconds)
    messages = [each.latest.detected.message for each in desk.store.since(0).findings]
    for message in messages[:_SHOWN]:
        _say(message)
    if len(messages) > _SHOWN:
        _say(f"and {len(messages) - _SHOWN} more findings")
    return status


def _say(line: str) -> None:
    # To stderr, as stdout belongs to the program.
    print(f"otel-leaks: {line}", file=sys.stderr, flush=True)


def _limit(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return number
