"""The errors of this package: where they stand, what they derive from, what raises others."""

from __future__ import annotations

import ast
import builtins
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_leaks
from otel_leaks import errors
from otel_leaks.errors import FilesDifferError, LeaksFound, OtelLeaksError
from otel_leaks.testing import Report

ROOT = Path(otel_leaks.__file__).parent
INTERNAL = {
    "attach.wire.WireError": "ends a visit, of which AttachError says so",
    "census.isolation.CensusEnded": "ends a census half-way, and is caught by what takes it",
    "census.isolation.SkippedError": "the same of one part of it",
    "log.LoggedError": "stands for another's error in the log; nothing raises it",
    "runtime.interrupting.TooLong": "ends a step of a task that takes too long, and is caught",
    "testing.proof._GaveUpError": "ends a search, which then says why it proved nothing",
    "viewer.otlp.Refused": "is the answer to an HTTP request",
}
"""What never leaves the package."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def is_exception(name: str) -> bool:
    found = getattr(builtins, name, None) or getattr(errors, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)


def test_every_error_stands_in_errors() -> None:
    classes = {
        f"{module}.{node.name}"
        for module, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(is_exception(ast.unparse(base).rpartition(".")[2]) for base in node.bases)
    }
    assert classes - INTERNAL.keys() == {f"errors.{name}" for name in errors.__all__}
    assert INTERNAL.keys() <= classes


PROTOCOLS = {("", "AttributeError"), ("testing", "AttributeError")}
"""What Python expects of a module's __getattr__."""


def test_what_is_raised_with_words_is_an_error_of_ours() -> None:
    raised = {
        ("" if module == "__init__" else module, node.exc.func.id)
        for module, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and hasattr(builtins, node.exc.func.id)
    }
    assert raised == PROTOCOLS


@pytest.mark.parametrize("name", sorted({*errors.__all__} - {"OtelLeaksError"}))
def test_an_error_is_also_the_built_in_that_a_caller_expects(name: str) -> None:
    kind = getattr(errors, name)
    of_python = [
        each
        for each in kind.__mro__
        if each.__module__ == "builtins" and each not in {Exception, BaseException, object}
    ]
    assert of_python != []
    assert issubclass(kind, OtelLeaksError) is not issubclass(kind, Warning)


def test_the_names_that_errors_had_before_are_the_same_classes() -> None:
    from otel_leaks import shipped
    from otel_leaks.runtime import native
    from otel_leaks.testing import LeaksFound as OfTesting
    from otel_leaks.testing import UnusedIgnoreWarning

    assert [shipped.UnknownError, shipped.ChangedError, native.NoDaemonsError] == [
        *(errors.UnknownExampleError, errors.FilesDifferError, errors.NoDaemonsError),
    ]
    assert [OfTesting, UnusedIgnoreWarning] == [errors.LeaksFound, errors.UnusedIgnoreWarning]


def test_an_error_keeps_what_it_carries_on_its_way_through_another_process() -> None:
    report = Report()
    found = pickle.loads(pickle.dumps(LeaksFound(report, ["ignore_task('t') matched nothing"])))
    assert (str(found), found.report) == (
        "no leaks\nunused: ignore_task('t') matched nothing",
        report,
    )
    differ = pickle.loads(pickle.dumps(FilesDifferError([Path("a"), Path("b")])))
    assert (str(differ), differ.paths) == ("a, b", (Path("a"), Path("b")))
