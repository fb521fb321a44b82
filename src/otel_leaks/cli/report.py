"""``otel-leaks report``: shows a detection or a report from a file, or converts it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from otel_leaks.cli.refusal import refuse

__all__ = ["add"]

FORMATS = ("text", "markdown", "html", "folded", "speedscope", "sarif")
"""The formats of ``otel_leaks.report.documents``, which is imported only when needed, and html."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    report = commands.add_parser(
        "report",
        help="show a detection or a report from a file",
        description=(
            "Show the contents of a file: a detection exported as OTLP JSON (of a collector's file "
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
    from otel_leaks.report.versions import look_in

    look_in(())  # The packages installed here are not those of the process in the file.
    try:
        written = _written(options.file, options.format)
    except (OSError, ReportFileError) as error:
        return refuse(f"otel-leaks report: {error}")
    if options.output is None:
        if options.format == "html":
            # The page declares itself as UTF-8, whatever the terminal's encoding.
            sys.stdout.buffer.write(written.encode())
        else:
            sys.stdout.write(written)
        return 0
    try:
        Path(options.output).write_text(written, encoding="utf-8")
    except OSError as error:
        return refuse(f"otel-leaks report: {error}")
    return 0


def _written(file: str, form: str) -> str:
    from otel_leaks.report.document import merged
    from otel_leaks.report.documents import FORMATS as WRITERS
    from otel_leaks.report.files import content_of, documents_of

    if file == "-":
        data, name = sys.stdin.buffer.read(), "standard input"
    else:
        data, name = content_of(Path(file)), file
    if form == "html":
        from otel_leaks.viewer.saved import page_of_file

        return page_of_file(data, name)
    documents = documents_of(data, name)
    write = WRITERS[form]
    if form == "text":
        return "\n".join(map(write, documents))
    return write(merged(documents))
