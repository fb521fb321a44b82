"""Modules as an installed package has them: below site-packages, so that they are a library's."""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path
from types import ModuleType


def installed(folder: Path, name: str, source: str) -> ModuleType:
    """Return a module that is installed below *folder*; it is not put into ``sys.modules``."""
    packages = folder / "site-packages"
    packages.mkdir(exist_ok=True)
    file = packages / f"{name}.py"
    file.write_text(textwrap.dedent(source), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
