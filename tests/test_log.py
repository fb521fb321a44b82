from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_leaks
from otel_leaks.log import log, stand_in

FORMAT = "2026-01-01 12:00:00 %(levelname)s %(module)s %(message)s"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Give what a handler of the application's writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger("otel_leaks")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


FORGED = "x\n2026-01-01 12:00:01 CRITICAL root hacked\x1b[31m\u2028\udce9"


def starts(text: str) -> list[str]:
    """Return the first ten characters of each line."""
    return [line[:10] for line in text.splitlines()]


def test_an_argument_can_not_forge_a_line_of_the_log(stream: io.StringIO) -> None:
    log.error("could not read %s in %d s", FORGED, 3)
    assert stream.getvalue() == (
        "2026-01-01 12:00:00 ERROR test_log could not read x\\n2026-01-01 12:00:01 CRITICAL root "
        "hacked\\x1b[31m\\u2028\\udce9 in 3 s\n"
    )


def test_every_line_but_the_first_is_indented(stream: io.StringIO) -> None:
    log.warning("leaked %s", "x", lines="  one\n  two\x1b\nthree")
    assert starts(stream.getvalue()) == ["2026-01-01", "  one", "  two\\x1b", "  three"]


def fail(error: Exception) -> None:
    raise error


def logged(error: Exception) -> None:
    try:
        fail(error)
    except Exception:
        log.exception("looking failed")


def test_an_exception_is_logged_with_type_and_stack_and_without_values(
    stream: io.StringIO,
) -> None:
    logged(ValueError("no AKIAIOSFODNN7EXAMPLE of jane@example.com: " + FORGED))
    first, second, *stack = stream.getvalue().splitlines()
    assert first == "2026-01-01 12:00:00 ERROR test_log looking failed"
    assert second.startswith("otel_leaks.log.LoggedError: ValueError: no * of * ")
    assert [line.rpartition(", ")[2] for line in stack] == ["in logged", "in fail"]
    assert all(line.startswith(f'  File "{__file__}", line ') for line in stack)
    assert "CRITICAL" not in stream.getvalue()


class OddError(Exception):
    def __str__(self) -> str:
        raise AssertionError("nothing of the application's is called")

    __repr__ = __str__


def test_what_an_exception_would_say_of_itself_is_not_asked() -> None:
    assert str(stand_in(OddError(3))) == f"{OddError.__module__}.OddError"
    assert str(stand_in(OSError(2, "No such file", "/home/jane"))) == (
        "FileNotFoundError: No such file"
    )
    assert str(stand_in(KeyError("k"))) == "KeyError: k"


def test_the_stand_in_keeps_nothing_of_the_exception() -> None:
    try:
        fail(ValueError("no"))
    except ValueError as error:
        shown = stand_in(error)
    assert (shown.__traceback__, shown.__cause__, shown.__context__) == (None, None, None)


def test_a_record_names_the_line_that_logged_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="otel_leaks"):
        log.info("a")
        log.warning("b")
        log.error("c")
        log.exception("d")
        log.log(logging.INFO, "e")
    assert {record.filename for record in caplog.records} == {Path(__file__).name}
    assert {record.name for record in caplog.records} == {"otel_leaks"}


def test_no_other_module_logs() -> None:
    root = Path(otel_leaks.__file__).parent
    others = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*.py"))
        if "getLogger(" in path.read_text("utf-8") and path.name != "log.py"
    ]
    # The demo is a program of its own.
    assert [each for each in others if not each.startswith("demo")] == []
