"""``otel-leaks report``: a file with a detection or a report, for people and for other tools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from otel_leaks.cli.refusal import refuse

__all__ = ["add"]

FORMATS = ("text", "markdown", "html", "folded", "speedscope", "sarif")
"""Those of ``otel_leaks.report.documents``, which is imported when one is written."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the shell's entry point."""
    report = commands.add_parser(
        "report",
        help="show a detection or a report that stands in a file",
        description=(
            "Show what stands in a file: a detection exported as OTLP JSON (of a collector's file "
            "exporter, for one), a report of pytest --leaks-json, or the output of otel-leaks ps "
            "--json."
        ),
        epilog="Exit status: 0 when it was written, 2 when the file can't be read.",
    )
    report.add_argument("file", metavar="FILE", help="to read, - for standard input")
    report.add_argument(
        "--format", choices=FORMATS, default="text", help="what to write (default: text)"
    )
    report.add_argument("--output", metavar="FILE", help="where to write, instead of printing it")
    report.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from otel_leaks.errors import ReportFileError
    from otel_leaks.report.document import merged
    from otel_leaks.report.documents import FORMATS as WRITERS
    from otel_leaks.report.files import documents_in, documents_of
    from otel_leaks.report.versions import look_in

    look_in(())  # What is installed here says nothing of the process in the file.
    try:
        if options.file == "-":
            documents = documents_of(sys.stdin.buffer.read(), "standard input")
        else:
            documents = documents_in(Path(options.file))
    except (OSError, ReportFileError) as error:
        return refuse(f"otel-leaks report: {error}")
    write = WRITERS[options.format]
    if options.format == "text":
        written = "\n".join(map(write, documents))
    else:
        written = write(merged(documents))
    if options.output is None:
        sys.stdout.write(written)
        return 0
    try:
        Path(options.output).write_text(written, encoding="utf-8")
    except OSError as error:
        return refuse(f"otel-leaks report: {error}")
    return 0
