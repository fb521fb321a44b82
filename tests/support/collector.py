"""
Find a real OpenTelemetry Collector for the tests, or build one.

    PYTHONPATH=tests python -m support.collector            # prints its path
    PYTHONPATH=tests python -m support.collector --where    # prints where it is kept

It is built once with the official builder (``collector-builder.yaml``), which takes
some minutes and needs Go, and is kept in the user's cache under the hash of that file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from support.once import one_at_a_time

__all__ = ["VARIABLE", "CollectorMissing", "cached", "collector"]

VARIABLE = "OTEL_LEAKS_COLLECTOR"
"""Names a collector to use instead of building one."""
OLDEST = "0.159"
"""Of the contrib distribution, what the files under examples/ need."""
MANIFEST = Path(__file__).with_name("collector-builder.yaml")

_NAME = "otelcol.exe" if sys.platform == "win32" else "otelcol"
_LOG_LINES = 15


class CollectorMissing(Exception):  # noqa: N818 - it is no error of the tests
    """There is no collector, and none can be built; the message says what to do."""


def cached(environ: Mapping[str, str]) -> Path:
    """Return where the built collector is, or would be."""
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    mark = hashlib.sha256(MANIFEST.read_bytes()).hexdigest()[:12]
    return Path(base) / "otel-leaks" / f"collector-{mark}" / _NAME


def collector(environ: Mapping[str, str], *, say: Callable[[str], None]) -> Path:
    """
    Return a collector that can be run.

    Args:
        environ: The environment: ``OTEL_LEAKS_COLLECTOR``, ``XDG_CACHE_HOME``, ``PATH``.
        say: Is told before a build begins.

    Raises:
        CollectorMissing: None is named, none is cached, and none can be built.
    """
    named = environ.get(VARIABLE)
    if named:
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise CollectorMissing(
                f"{VARIABLE} must be the path of an otelcol that can be run, got {named!r}; "
                "leave it out to build one with Go"
            )
        return Path(named)
    kept = cached(environ)
    if kept.is_file():
        return kept
    go = shutil.which("go", path=environ.get("PATH"))
    if go is None:
        raise CollectorMissing(
            "no OpenTelemetry Collector: Go, which would build one, is not on PATH. Install Go, "
            f"or get otelcol-contrib {OLDEST} or newer from the OpenTelemetry Collector's "
            f"releases, and set {VARIABLE} to its path, or put it at {kept}"
        )
    with one_at_a_time(kept.parent):
        if not kept.is_file():
            say(f"building an OpenTelemetry Collector, once; this takes some minutes: {kept}")
            _build(go, kept, environ)
    return kept


def _build(go: str, target: Path, environ: Mapping[str, str]) -> None:
    """Build in a folder beside *target*, so that the last step is one rename."""
    found = re.search(r"^  version: ([\d.]+)$", MANIFEST.read_text("utf-8"), re.MULTILINE)
    assert found is not None, f"{MANIFEST} has no dist.version"
    package = f"go.opentelemetry.io/collector/cmd/builder@v{found[1]}"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as name:
        folder = Path(name)
        env = {**environ, "GOBIN": name}
        _run([go, "install", package], folder, env)
        builder = next(each for each in folder.iterdir() if each.stem == "builder")
        _run([str(builder), f"--config={MANIFEST}"], folder, env)
        (folder / "out" / _NAME).replace(target)


def _run(command: list[str], folder: Path, env: Mapping[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-_LOG_LINES:])
        raise CollectorMissing(
            "no OpenTelemetry Collector: building one failed. Get otelcol-contrib "
            f"{OLDEST} or newer and set {VARIABLE} to its path, or fix this:\n"
            f"$ {' '.join(command)}\n{last}"
        )


def main() -> int:
    """Print the path of a collector; return 1 when there is none."""
    parser = argparse.ArgumentParser(description="find or build the collector of the tests")
    parser.add_argument("--where", action="store_true", help="only say where it is kept")
    if parser.parse_args().where:
        print(cached(os.environ))
        return 0
    try:
        print(collector(os.environ, say=lambda text: print(text, file=sys.stderr, flush=True)))
    except CollectorMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
