"""``otel-leaks view``: the page, for processes that export OTLP to it."""

from __future__ import annotations

import argparse
import threading

from otel_leaks.cli import pages
from otel_leaks.cli.refusal import refuse

__all__ = ["add"]

_HTTP, _GRPC = 4318, 4317


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    view = commands.add_parser(
        "view",
        help="a live page for processes that export OTLP to it",
        description=(
            "Receive OTLP on this machine, over HTTP and gRPC, and show on a live page what "
            "leaks in the processes that send it."
        ),
        epilog="Ctrl-C ends it. Nothing is stored, and nothing outside this machine can reach it.",
    )
    pages.add_options(view, http_port=_HTTP, lasts="end", default="without it, at Ctrl-C")
    view.add_argument(
        "--grpc-port",
        type=pages.port,
        default=_GRPC,
        metavar="N",
        help=f"port of OTLP over gRPC (default: {_GRPC}); the next free one where it is taken",
    )
    view.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    refused = pages.lacks_extra("view")
    if refused is not None:
        return refused
    from otel_leaks.viewer.desk import Desk, has_browser, open_browser

    try:
        desk = Desk("otel-leaks", port=options.port, grpc_port=options.grpc_port)
    except OSError as error:
        return refuse(f"otel-leaks view: {error}")
    with desk:
        pages.introduce(desk, wanted=options.port, grpc_wanted=options.grpc_port, say=_say)
        _say(f"Exporters send to {desk.http} (OTLP over HTTP) or {desk.grpc} (gRPC).")
        _say("Ctrl-C ends it.")
        if has_browser() and not options.no_browser:
            open_browser(desk.address)
        threading.Event().wait(options.seconds)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)
