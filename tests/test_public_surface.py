"""What others build on: public names and signatures, and what a type checker makes of them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import otel_leaks

MODULES = ("otel_leaks", "otel_leaks.errors", "otel_leaks.testing")
IGNORE = "(pattern: 'str', *, reason: 'str' = '', until: 'dt.date | str | None' = None) -> 'Ignore'"
SURFACE = {
    "otel_leaks.LeakInstrumentor": "(*args, **kwargs)",
    "otel_leaks.__version__": "str",
    "otel_leaks.configure": "(endpoint: 'str | None' = None, service_name: 'str | None' = None) -> 'None'",
    "otel_leaks.prove": "(*tasks: 'Any', budget_s: 'float' = 5.0, clock: 'Callable[[], float]' = <built-in function perf_counter>) -> 'Proof'",
    "otel_leaks.errors.AttachError": "",
    "otel_leaks.errors.BaselineError": "",
    "otel_leaks.errors.CensusError": "",
    "otel_leaks.errors.FilesDifferError": "(paths: 'Sequence[Path]') -> 'None'",
    "otel_leaks.errors.FingerprintSchemeError": "",
    "otel_leaks.errors.IgnoreSyntaxError": "",
    "otel_leaks.errors.InvalidTypeError": "",
    "otel_leaks.errors.InvalidValueError": "",
    "otel_leaks.errors.LeaksFound": "(report: 'Report', unused: 'Iterable[str]' = ()) -> 'None'",
    "otel_leaks.errors.NoDaemonsError": "",
    "otel_leaks.errors.NoPortError": "",
    "otel_leaks.errors.OtelLeaksError": "",
    "otel_leaks.errors.ReportFileError": "",
    "otel_leaks.errors.UnknownExampleError": "",
    "otel_leaks.errors.UnknownProgramError": "",
    "otel_leaks.errors.UnusedIgnoreWarning": "",
    "otel_leaks.testing.Grace": "(attempts: 'int' = 20, max_delay_s: 'float' = 0.1) -> None",
    "otel_leaks.testing.LeakTestCase": "(methodName: 'str' = 'runTest') -> 'None'",
    "otel_leaks.testing.LeaksFound": "(report: 'Report', unused: 'Iterable[str]' = ()) -> 'None'",
    "otel_leaks.testing.Report": "(sites: 'tuple[Site, ...]' = (), hidden: 'tuple[Hidden, ...]' = (), finished: 'tuple[Finished, ...]' = ()) -> None",
    "otel_leaks.testing.UnusedIgnoreWarning": "",
    "otel_leaks.testing.find": "(*ignores: 'Ignore', grace: 'Grace' = Grace(attempts=20, max_delay_s=0.1), why: 'bool' = False) -> 'Report'",
    "otel_leaks.testing.ignore_any_function": IGNORE,
    "otel_leaks.testing.ignore_created_by": IGNORE,
    "otel_leaks.testing.ignore_current": "(*, reason: 'str' = '') -> 'Ignore'",
    "otel_leaks.testing.ignore_fingerprint": IGNORE,
    "otel_leaks.testing.ignore_module": IGNORE,
    "otel_leaks.testing.ignore_task": IGNORE,
    "otel_leaks.testing.ignore_thread": IGNORE,
    "otel_leaks.testing.ignore_top_function": IGNORE,
    "otel_leaks.testing.verify_none": "(*ignores: 'Ignore', grace: 'Grace' = Grace(attempts=20, max_delay_s=0.1), before_check: 'Callable[[], Any] | None' = None) -> 'None'",
}
"""Change it on purpose, with an entry in CHANGELOG.md."""


def surface() -> dict[str, str]:
    return {
        f"{name}.{each}": shown(getattr(module, each))
        for name in MODULES
        for module in [importlib.import_module(name)]
        for each in sorted(module.__all__)
    }


def shown(value: object) -> str:
    if not callable(value):
        return type(value).__name__
    try:
        return str(inspect.signature(value))
    except ValueError:  # That of an exception without one of its own.
        return ""


def test_public_names_and_signatures_are_as_they_were() -> None:
    assert surface() == SURFACE


GOOD = """
    import asyncio
    from datetime import date

    from otel_leaks import LeakInstrumentor, configure
    from otel_leaks.config import LeakConfig
    from otel_leaks.errors import InvalidValueError, LeaksFound, UnusedIgnoreWarning
    from otel_leaks.testing import Grace, Report, find, ignore_task, ignore_thread, verify_none

    ignores = (
        ignore_thread("name-*", reason="why", until="2030-01-01"),
        ignore_task("beat", until=date(2030, 1, 1)),
    )
    grace = Grace(attempts=3, max_delay_s=0.5)
    found: Report = find(*ignores, grace=grace, why=True)
    held_by: list[str | None] = [site.sample.held_by for site in found if site.sample]
    texts: list[str] = [site.fingerprint for site in found]

    with verify_none(*ignores, grace=grace):
        pass


    async def in_block() -> None:
        async with verify_none(before_check=lambda: asyncio.sleep(0)):
            pass


    @verify_none()
    def decorated(number: int) -> str:
        return str(number)


    @verify_none(*ignores)
    async def decorated_async(number: int) -> str:
        return str(number)


    async def use() -> tuple[str, str]:
        return decorated(1), await decorated_async(1)


    try:
        decorated(2)
    except LeaksFound as error:
        report: Report = error.report
        message: str = report.to_json()

    configure(endpoint="http://localhost:4318", service_name="shop")
    LeakInstrumentor().instrument(thread_limit=10)
    category: type[UserWarning] = UnusedIgnoreWarning
    config: LeakConfig = LeakConfig(interval_s=5.0, task_limit=None, ignore=(ignores[0],))
    known: type[ValueError] = InvalidValueError
"""
BAD = """
    from otel_leaks import LeakInstrumentor
    from otel_leaks.testing import Grace, find, ignore_thread, verify_none


    @verify_none()
    def decorated(number: int) -> str:
        return str(number)


    decorated("one")
    find("name-*")
    Grace(attempts="many")
    ignore_thread("name-*", "why")
    verify_none(grace=3)


    class Mine(LeakInstrumentor):
        pass
"""
WRONG = [11, 12, 13, 14, 15, 18]
"""The lines of that program in which there is an error."""


def errors_of(program: str, folder: Path) -> tuple[list[int], str]:
    """Return the lines of a program in which mypy finds an error, and all that it says."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(program), encoding="utf-8")
    source = str(Path(otel_leaks.__file__).parents[1])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-incremental"),
            *("--config-file", os.devnull, "--follow-imports=silent", path.name),
        ],
        cwd=folder,
        env={**os.environ, "MYPYPATH": source},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    found = [line for line in said.splitlines() if ": error: " in line]
    return [int(line.split(":")[1]) for line in found], said


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="types are the same on each version")
def test_a_type_checker_accepts_what_the_docs_show(tmp_path: Path) -> None:
    lines, said = errors_of(GOOD, tmp_path)
    assert lines == [], said


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="types are the same on each version")
def test_a_type_checker_refuses_wrong_arguments(tmp_path: Path) -> None:
    lines, said = errors_of(BAD, tmp_path)
    assert lines == WRONG, said


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="types are the same on each version")
@pytest.mark.skipif(
    not importlib.util.find_spec("basedpyright"), reason="`pip install basedpyright` to run this"
)
def test_pyright_agrees(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(textwrap.dedent(GOOD), encoding="utf-8")
    (tmp_path / "bad.py").write_text(textwrap.dedent(BAD), encoding="utf-8")
    source = str(Path(otel_leaks.__file__).parents[1])
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.10", "extraPaths": [source]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error"),
            *("--pythonpath", sys.executable, "--project", str(tmp_path)),
        ],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    found = [
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in json.loads(done.stdout)["generalDiagnostics"]
    ]
    assert sorted(found) == [("bad.py", line) for line in WRONG], done.stdout
