"""The table of DESIGN section 1: who may import whom, read from the imports themselves."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_leaks

ROOT = Path(otel_leaks.__file__).parent

# Each module or package of ours, and what of ours it may import. A package may import
# its own modules. "" is otel_leaks itself, for __version__.
ALLOWED: dict[str, set[str]] = {
    "": {"instrumentor", "telemetry.otlp", "testing.proof"},
    "model": set(),
    "errors": {"testing.report"},  # The type of what LeaksFound carries, for checkers alone.
    "libraries": {"model"},
    "ignores": {"model", "errors"},
    "config": {"model", "errors", "ignores"},
    "environment_variables": {"config"},
    "runtime": {"model", "errors", "libraries"},
    "origins": {"model", "libraries", "runtime"},
    "census": {"model", "libraries", "ignores", "runtime", "origins"},
    "detect": {"model", "config"},
    "report": {"", "model", "errors", "libraries", "detect", "telemetry.names"},
    "log": {"report.texts", "report.masks"},
    "monitor": {
        *("model", "config", "runtime", "census", "detect"),
        *("log", "report.texts", "report.masks"),
    },
    "telemetry": {"model", "errors", "libraries", "runtime", "report", "log"},
    "instrumentor": {
        *("", "model", "config", "ignores", "runtime", "origins", "census"),
        *("detect", "monitor", "report", "telemetry", "log", "attach"),
    },
    "testing": {"model", "errors", "ignores", "runtime", "origins", "census", "report"},
    "pytest_plugin": {
        *("testing", "model", "errors", "ignores", "runtime", "origins", "census", "report"),
    },
    "viewer": {"errors", "telemetry.names", "report"},
    "attach": {
        *("", "model", "errors", "libraries", "ignores", "runtime", "origins", "census", "report"),
        "log",
    },
    "demo": {"", "instrumentor", "telemetry", "viewer"},
    "shipped": {"errors"},
    "cli": {
        *("", "viewer", "instrumentor", "demo", "shipped", "attach", "report"),
        *("errors", "ignores", "libraries"),
    },
}
TELEMETRY = {"telemetry", "instrumentor", "viewer", "cli", "demo"}
FOREIGN = ("opentelemetry", "grpc", "trio", "gevent", "psutil")


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def row_of(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """Return the dotted names of the modules that a file imports, anywhere in it."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            # "from otel_leaks.detect import threshold" may name a module or a value.
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if is_module(full) else node.module


def is_module(dotted: str) -> bool:
    path = ROOT.parent.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def ours(dotted: str) -> str | None:
    """Return the name of a module of ours below the package, None for another's."""
    top, _, below = dotted.partition(".")
    return below if top == "otel_leaks" else None


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_imports_only_what_its_row_allows(path: Path) -> None:
    row = row_of(name_of(path))
    assert row in ALLOWED, f"{path.name} has no row in the table of DESIGN section 1"
    targets = [target for each in imported(path) if (target := ours(each)) is not None]
    allowed = ALLOWED[row]
    refused = [
        target
        for target in targets
        if not ((row and row_of(target) == row) or target in allowed or row_of(target) in allowed)
    ]
    assert refused == []


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_the_entry_points_to_telemetry_import_opentelemetry(path: Path) -> None:
    foreign = [each for each in imported(path) if each.partition(".")[0] in FOREIGN]
    if row_of(name_of(path)) in TELEMETRY:
        foreign = [each for each in foreign if each.partition(".")[0] in FOREIGN[2:]]
    assert foreign == []


def imported_at_once(path: Path) -> Iterator[str]:
    """Yield what importing a file imports, of modules of ours: nothing for checkers alone."""

    def visit(node: ast.AST) -> Iterator[str]:
        is_for_checkers = (
            isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        )
        if is_for_checkers or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if is_module(full) else node.module or ""
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    for each in visit(ast.parse(path.read_text(encoding="utf-8"))):
        below = ours(each)
        if below is not None:
            yield below


def test_no_module_imports_itself_over_others() -> None:
    ahead = {name_of(path): set(imported_at_once(path)) for path in modules()}
    # What imports nothing that is left is in no circle; so is what only that needs.
    while free := [name for name, needs in ahead.items() if not needs & ahead.keys()]:
        for name in free:
            del ahead[name]
    assert ahead == {}


MOST_LINES = 450
MOST_OF_CLASS = 220


def test_no_module_is_longer_than_450_lines() -> None:
    lines = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in modules()}
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def classes() -> Iterator[tuple[str, int]]:
    """Yield the classes of the package, and how many lines each has."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno is not None
                yield f"{name_of(path)}.{node.name}", node.end_lineno - node.lineno + 1


def test_no_class_is_longer_than_220_lines() -> None:
    lines = dict(classes())
    assert {name: n for name, n in lines.items() if n > MOST_OF_CLASS} == {}


def test_every_row_has_its_module() -> None:
    built = {row_of(name_of(path)) for path in modules()}
    # The local page and the shell's door come with their own issue.
    assert set(ALLOWED) - built <= {"viewer", "demo", "cli"}


def test_the_reader_of_imports_sees_those_in_functions_and_modules_of_packages(
    tmp_path: Path,
) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import os.path\n"
        "from otel_leaks.detect import threshold as _t\n"
        "from otel_leaks.model import Site\n"
        "def f():\n    from otel_leaks import model, __version__\n"
    )
    assert list(imported(path)) == [
        "os.path",
        "otel_leaks.detect.threshold",
        "otel_leaks.model",
        "otel_leaks.model",
        "otel_leaks",
    ]


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def test_the_engine_loads_nothing_of_opentelemetry_or_of_optional_runtimes() -> None:
    told = run(f"""
        import sys
        import otel_leaks, otel_leaks.census, otel_leaks.report.text, otel_leaks.ignores
        import otel_leaks.config, otel_leaks.model, otel_leaks.detect.threshold
        import otel_leaks.monitor.watch
        import otel_leaks.environment_variables, otel_leaks.testing.proof
        print(sorted(name for name in sys.modules if name.partition(".")[0] in {FOREIGN!r}))
    """)
    assert told == "[]\n"


def test_importing_the_instrumentor_starts_and_patches_nothing() -> None:
    told = run("""
        import asyncio, atexit, logging, os, sys, threading
        import opentelemetry.instrumentation.instrumentor, opentelemetry.sdk.trace
        import opentelemetry.sdk.metrics, opentelemetry.sdk._logs.export
        import opentelemetry.sdk.metrics.export, opentelemetry.sdk.trace.export

        forked = []
        os.register_at_fork = lambda **hooks: forked.append(hooks)

        def state():
            patchable = [threading.Thread, threading, asyncio.BaseEventLoop, asyncio.tasks,
                         asyncio.Task, asyncio.AbstractEventLoop, asyncio.events]
            return {
                "attributes": {(repr(each), name): value for each in patchable
                               for name, value in vars(each).items()},
                "threads": threading.enumerate(),
                "handlers": [list(logging.getLogger(name).handlers)
                             for name in (None, "otel_leaks", "opentelemetry")],
                "level": logging.getLogger("otel_leaks").level,
                "atexit": atexit._ncallbacks(),
                "excepthook": sys.excepthook,
                "fork": list(forked),
            }

        before = state()
        import otel_leaks.instrumentor
        from otel_leaks import LeakInstrumentor, configure
        after = state()
        print([key for key in before
               if key != "attributes" and before[key] != after[key]])
        print([key for key, value in before["attributes"].items()
               if after["attributes"].get(key) is not value])
        print(otel_leaks.instrumentor._active)
    """)
    assert told == "[]\n[]\nNone\n"


def test_the_package_names_what_it_resolves_when_it_is_first_used() -> None:
    from otel_leaks.instrumentor import LeakInstrumentor
    from otel_leaks.telemetry.otlp import configure
    from otel_leaks.testing.proof import prove

    assert otel_leaks.LeakInstrumentor is LeakInstrumentor
    assert otel_leaks.configure is configure
    assert otel_leaks.prove is prove
    assert {"LeakInstrumentor", "configure", "prove", "__version__"} <= set(dir(otel_leaks))


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'otel_leaks' has no attribute 'instrument'"):
        otel_leaks.instrument  # noqa: B018 - the look is what raises
