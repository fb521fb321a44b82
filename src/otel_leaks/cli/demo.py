"""``otel-leaks demo``: a small leaking web service, caught while you watch."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from otel_leaks.cli import pages
from otel_leaks.cli.refusal import refuse

__all__ = ["add"]

_PORT = 4318
_SECONDS = 30.0
"""Default duration of the demo in the terminal."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    demo = commands.add_parser(
        "demo",
        help="watch a small leaking web service being caught",
        description=(
            "Start a small web service with a leak, send it requests, receive its "
            "OpenTelemetry, and show the leak when it is detected: on a live page, or in the "
            "terminal where there is no browser. Needs nothing else, and leaves nothing behind."
        ),
        epilog="Exit status: 0 when the leak was caught, 1 when not.",
    )
    pages.add_options(
        demo,
        http_port=None,
        lasts="end",
        default="without it, on the page at Ctrl-C, in the terminal when the leak is caught or "
        f"after {_SECONDS:g} s",
        seconds_type=partial(pages.seconds, default="30"),
        browserless="open nothing: draw in the terminal or, with --port, print the address",
    )
    # For the tests, which set it so high that nothing is caught.
    demo.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    demo.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    refused = pages.lacks_extra("demo")
    if refused is not None:
        return refused
    from otel_leaks.demo.run import TASK_LIMIT, run
    from otel_leaks.viewer.desk import Desk, has_browser, open_browser
    from otel_leaks.viewer.terminal import Screen

    task_limit = TASK_LIMIT if options.limit is None else options.limit
    opens = has_browser() and not options.no_browser
    # A given port means that the page is wanted, even if nothing can open it.
    if not opens and options.port is None:
        with Screen(sys.stdout) as screen:
            seconds = _SECONDS if options.seconds is None else options.seconds
            return run(seconds=seconds, task_limit=task_limit, screen=screen)
    from otel_leaks.demo.live import run_live

    port = _PORT if options.port is None else options.port

    def opened(desk: Desk) -> None:
        pages.introduce(desk, wanted=port, say=_say)
        _say("Ctrl-C ends it.")
        if opens:
            open_browser(desk.address)

    try:
        return run_live(
            port=port, seconds=options.seconds, task_limit=task_limit, opened=opened, say=_say
        )
    except OSError as error:
        return refuse(f"otel-leaks demo: {error}")


def _say(line: str) -> None:
    print(line, flush=True)
