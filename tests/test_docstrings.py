"""What the docstrings of public names say: since when they are there, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import otel_leaks
from otel_leaks.config import LeakConfig
from test_public_surface import MODULES

ROOT = Path(otel_leaks.__file__).parent
PUBLIC = {
    f"{value.__module__}.{value.__qualname__}": value
    for module in map(importlib.import_module, MODULES)
    for name in module.__all__
    if callable(value := getattr(module, name))
} | {"otel_leaks.config.LeakConfig": LeakConfig}
RELEASE = re.match(r"\d+\.\d+", otel_leaks.__version__)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_since_which_version_it_is_there(name: str) -> None:
    (since,) = re.findall(
        r"^\.\. versionadded:: (\S+)$", inspect.getdoc(PUBLIC[name]) or "", re.MULTILINE
    )
    assert RELEASE is not None
    assert tuple(map(int, since.split("."))) <= tuple(map(int, RELEASE[0].split(".")))


def with_examples() -> list[str]:
    """Return the modules whose docstrings have examples."""
    found = [path for path in ROOT.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    names = [path.relative_to(ROOT.parent).with_suffix("").parts for path in found]
    return sorted(".".join(parts).removesuffix(".__init__") for parts in names)


# In a process of its own: examples instrument it, and leak on purpose.
RUN = """
import doctest, importlib, sys
module = importlib.import_module(sys.argv[1])
print(doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE))
"""


@pytest.mark.parametrize("module", with_examples())
def test_the_examples_of_docstrings_run(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, module],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    result = done.stdout.splitlines()[-1] if done.stdout else done.stderr
    assert re.fullmatch(r"TestResults\(failed=0, attempted=[1-9]\d*\)", result), done.stdout


def test_an_example_that_does_not_hold_would_be_seen() -> None:
    parsed = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    assert runner.run(parsed, out=lambda _: None).failed == 1
