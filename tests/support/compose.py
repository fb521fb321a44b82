"""
Find the loader of Docker Compose for the tests, or build it.

It is the module that `docker compose` reads its files with, and takes some seconds with Go.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from support.once import one_at_a_time

__all__ = ["LoaderMissing", "loader"]

VERSION = "2.16.2"


class LoaderMissing(Exception):  # noqa: N818 - it is no error of the tests
    """There is no loader, and none can be built; the message says what to do."""


def loader(environ: Mapping[str, str]) -> Path:
    """
    Return a program that reads a compose file, checks it, and prints it resolved.

    Args:
        environ: The environment: ``PATH``, ``XDG_CACHE_HOME``.

    Raises:
        LoaderMissing: It is not cached, and can't be built.
    """
    base = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-leaks"
    kept = base / f"compose-go-{VERSION}"
    if kept.is_file():
        return kept
    go = shutil.which("go", path=environ.get("PATH"))
    if go is None:
        raise LoaderMissing("no loader of compose files: put Go on PATH, which builds one")
    with one_at_a_time(base):
        if not kept.is_file():
            _build(go, kept, environ)
    return kept


def _build(go: str, kept: Path, environ: Mapping[str, str]) -> None:
    package = f"github.com/compose-spec/compose-go/v{VERSION[0]}/cmd@v{VERSION}"
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="build-") as folder:
        done = subprocess.run(
            [go, "install", package],
            env={**environ, "GOBIN": folder},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LoaderMissing(f"no loader of compose files: building one failed: {done.stderr}")
        next(Path(folder).iterdir()).replace(kept)
