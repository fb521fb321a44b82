"""
Find Prometheus' own tools for the tests, or get Debian's packages of them.

    PYTHONPATH=tests python -m support.prometheus promtool   # prints its path
    PYTHONPATH=tests python -m support.prometheus otlp       # of a Prometheus that takes OTLP

A program on PATH is taken as it is. Else Debian's package is downloaded and unpacked, not
installed, into the user's cache: it takes some seconds, and no rights.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from support.debian import unpacked
from support.once import one_at_a_time

__all__ = ["ProgramMissing", "program", "with_otlp"]

PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
}
"""Which package of Debian has a program."""

_SHARE = b"/usr/share/prometheus/"
_BELOW = b"usr/share/prometheus//"

OTLP_VERSION = "3.13.5"
OTLP_FLAG = "web.enable-otlp-receiver"


class ProgramMissing(Exception):  # noqa: N818 - it is no error of the tests
    """There is no such program, and none can be had; the message says what to do."""


def program(name: str, environ: Mapping[str, str]) -> Path:
    """
    Return a program that can be run, in the folder that its ``usr/bin`` is in.

    Args:
        name: One of ``PACKAGES``.
        environ: The environment: ``PATH``, ``XDG_CACHE_HOME``.

    Raises:
        ProgramMissing: It is not on PATH, and Debian's package can't be had.
    """
    found = shutil.which(name, path=environ.get("PATH"))
    if found is not None:
        return Path(found)
    base = _cache(environ)
    package = PACKAGES[name]
    try:
        kept = unpacked(package, base, finish=_as_it_would_be_installed)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ProgramMissing(
            f"no {name}: it is not on PATH, and Debian's package {package} can't be had ({error}); "
            "get it from https://prometheus.io/download and put it on PATH"
        ) from None
    return kept / "usr" / "bin" / name


def with_otlp(environ: Mapping[str, str], *, say: Callable[[str], None]) -> Path:
    """
    Return a Prometheus that takes metrics over OTLP.

    Debian's, also sid's 3.5, is built without; so it is built from its Go module, without
    the service discoveries, of which there are many.

    Args:
        environ: The environment: ``PATH``, ``XDG_CACHE_HOME``.
        say: Is told before a build begins.

    Raises:
        ProgramMissing: None is on PATH, and none can be built.
    """
    found = shutil.which("prometheus", path=environ.get("PATH"))
    if found is not None and OTLP_FLAG in _run(found, "--help"):
        return Path(found)
    kept = _cache(environ) / f"prometheus-{OTLP_VERSION}" / "prometheus"
    if not kept.is_file():
        say(f"building a Prometheus that takes OTLP, once; this takes some minutes: {kept}")
        try:
            with one_at_a_time(kept.parent):
                if not kept.is_file():
                    _build(kept)
        except (OSError, subprocess.CalledProcessError) as error:
            why = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
            raise ProgramMissing(
                f"no Prometheus that takes OTLP: none is on PATH, and building one with Go failed "
                f"({why}); get 3.5 or newer from https://prometheus.io/download and put it on PATH"
            ) from None
    return kept


def _build(kept: Path) -> None:
    """Build in a folder beside *kept*, so that the last step is one rename."""
    major, minor, patch = OTLP_VERSION.split(".")
    module = f"github.com/prometheus/prometheus@v0.{major}{minor:0>2}.{patch}"
    downloaded = json.loads(_run("go", "mod", "download", "-json", module))
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="build-") as name:
        # A copy: `go install` of a module that replaces others is refused. Its workspace
        # names folders that the module has not.
        source = Path(name) / "source"
        shutil.copytree(downloaded["Dir"], source, copy_function=shutil.copyfile)
        source.chmod(0o755)
        (source / "go.work").unlink(missing_ok=True)
        flags = ("-tags=remove_all_sd", "-ldflags=-s -w", f"-o={Path(name) / 'prometheus'}")
        _run("go", "build", *flags, "./cmd/prometheus", folder=source)
        (Path(name) / "prometheus").replace(kept)


def _cache(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-leaks"


def _as_it_would_be_installed(unpacked: Path) -> None:
    """
    Let Debian's Alertmanager read its templates from below the folder that it runs in.

    It would read them from where it is installed; the new name is as long as the old one.
    """
    manager = unpacked / "usr" / "bin" / "prometheus-alertmanager"
    if manager.exists():
        manager.write_bytes(manager.read_bytes().replace(_SHARE, _BELOW))


def _run(*command: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Print the path of a program; return 1 when there is none."""
    try:
        name = sys.argv[1]
        found = with_otlp(os.environ, say=_say) if name == "otlp" else program(name, os.environ)
        print(found)
    except ProgramMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
