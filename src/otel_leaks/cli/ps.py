"""``otel-leaks ps``: what is alive in a running process."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from otel_leaks.cli.refusal import refuse

if TYPE_CHECKING:
    from otel_leaks.attach.visits import Visit
    from otel_leaks.report.document import Key
    from otel_leaks.report.snapshot import Snapshot

__all__ = ["add"]

WAIT_S = 10.0
INTERVAL_S = 2.0
KINDS = ("thread", "asyncio_task", "thread_pool")

_CLEAR = "\033[H\033[2J\033[3J"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    ps = commands.add_parser(
        "ps",
        help="show the threads and tasks of a running process, by its pid",
        description=(
            "Show what is alive in a running Python process, grouped by where it stands, the "
            "largest first. On Python 3.14 and later nothing has to be installed in it, and "
            "nothing stays in it; before, it has to be instrumented with attach=True. Without "
            "a pid: the processes that can be looked into."
        ),
        epilog="Exit status: 0 when it could look, 1 when not.",
    )
    ps.add_argument("pid", nargs="?", type=_pid, metavar="PID", help="of the process")
    ps.add_argument("--json", action="store_true", help="as JSON, one line for each look")
    ps.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=INTERVAL_S,
        metavar="SECONDS",
        help="look again every so many seconds (default: 2), what grew stands first",
    )
    ps.add_argument(
        "--history",
        action="store_true",
        help="the counts of the last 30 minutes, which an instrumented process remembers",
    )
    ps.add_argument(
        "--kind",
        action="append",
        choices=KINDS,
        help="only what is of this kind; can be given several times",
    )
    ps.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="IGNORE",
        help="what not to count, such as 'ignore_thread(\"worker-*\")'; several times",
    )
    ps.add_argument(
        "--why",
        metavar="SITE",
        help="say what holds the objects of a site: its fingerprint, or a pattern such as 'app.*'",
    )
    ps.add_argument(
        "--wait",
        type=_seconds,
        default=WAIT_S,
        metavar="SECONDS",
        help="for the process to answer (default: 10)",
    )
    ps.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from otel_leaks.errors import AttachError
    from otel_leaks.ignores import parse

    ignore = "\n".join(options.ignore)
    try:
        parse(ignore)
    except ValueError as error:
        return refuse(f"otel-leaks ps: --ignore: {error}")
    if options.pid is None:
        return _list(as_json=options.json)
    from otel_leaks.attach.visits import visit
    from otel_leaks.libraries import add_roots
    from otel_leaks.report.versions import look_in

    try:
        with visit(options.pid, wait_s=options.wait) as process:
            add_roots(process.library_roots)
            look_in(process.library_roots)
            if options.history:
                _print_history(process, as_json=options.json)
            else:
                _look(process, options, ignore)
    except AttachError as error:
        print(f"otel-leaks ps: {error}", file=sys.stderr)
        return 1
    return 0


def _print_history(process: Visit, *, as_json: bool) -> None:
    from otel_leaks.errors import AttachError
    from otel_leaks.report.past import history_of, history_text
    from otel_leaks.report.texts import between

    found = process.history()
    if as_json:
        print(json.dumps(found))
        return
    try:
        text = history_text(history_of(found))
    except (ValueError, KeyError) as error:
        raise AttachError(
            f"process {process.process.pid} sent no history that this version reads: {error}"
        ) from None
    title = process.process.title
    command = f": {between(title)}" if title else ""
    print(f"process {process.process.pid}{command}\n{text}", end="", flush=True)


def _look(process: Visit, options: argparse.Namespace, ignore: str) -> None:
    kinds = tuple(dict.fromkeys(options.kind)) if options.kind else None
    before: Mapping[Key, int] | None = None
    while True:
        snapshot = _snapshot(process, ignore, kinds, options.why)
        if options.json:
            print(json.dumps(snapshot.to_json()), flush=True)
        else:
            _print(snapshot, before, watches=options.watch is not None)
        if options.watch is None:
            return
        before = snapshot.counts()
        time.sleep(options.watch)


def _snapshot(
    process: Visit, ignore: str, kinds: tuple[str, ...] | None, why: str | None
) -> Snapshot:
    from otel_leaks.errors import AttachError
    from otel_leaks.report.snapshot import snapshot_of

    answer = process.look(ignore=ignore, kinds=kinds, why=why)
    census: Any = answer.get("census")
    try:
        snapshot = snapshot_of(
            {
                **(census if isinstance(census, dict) else {}),
                "pid": process.process.pid,
                "command": process.process.title,
                "python": process.python,
                "pauses": answer.get("pauses"),
                "wall_s": answer.get("wall_s"),
                "why": answer.get("why"),
            }
        )
    except ValueError as error:
        raise AttachError(f"process {process.process.pid} sent no census: {error}") from None
    if kinds is not None and "thread_pool" not in kinds:
        from dataclasses import replace

        return replace(snapshot, pools=None)
    return snapshot


def _print(snapshot: Snapshot, before: Mapping[Key, int] | None, *, watches: bool) -> None:
    from dataclasses import replace

    from otel_leaks.report.document import grown_first
    from otel_leaks.report.documents import FORMATS

    document = snapshot.document()
    if before is not None:
        document = replace(document, entries=tuple(grown_first(document.entries, before)))
    if watches and sys.stdout.isatty():
        print(_CLEAR, end="")
    elif before is not None:
        print()
    print(FORMATS["text"](document), end="", flush=True)


def _list(*, as_json: bool) -> int:
    from otel_leaks.attach.processes import PROC, processes, refusal

    if not PROC.is_dir():
        return refuse("otel-leaks ps needs a PID here: this system has no /proc to list them from")
    found = [(each, refusal(each)) for each in processes()]
    if as_json:
        for each, why in found:
            version = ".".join(map(str, each.version)) if each.version is not None else None
            plain = {"pid": each.pid, "python": version, "command": each.title, "refusal": why}
            print(json.dumps(plain))
        return 0
    from otel_leaks.report.texts import between

    if not found:
        print("no Python process")
    width = max((len(str(each.pid)) for each, _ in found), default=3)
    for each, why in found:
        version = ".".join(map(str, each.version)) if each.version is not None else "?"
        print(f"{each.pid:{width}}  {version:5}  {between(each.title, 100)}")
        if why is not None:
            print(f"{'':{width}}         no: {why}")
    return 0


def _pid(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"must be the number of a process, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds > 0, got {text!r}")
    return seconds
