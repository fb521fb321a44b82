"""
Find Prometheus' own tools for the tests, or get Debian's packages of them.

    python tests/support/prometheus.py promtool   # prints its path

A program on PATH is taken as it is. Else Debian's package is downloaded and unpacked, not
installed, into the user's cache: it takes some seconds, and no rights.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["ProgramMissing", "program"]

PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
}
"""Which package of Debian has a program."""

_SHARE = b"/usr/share/prometheus/"
_BELOW = b"usr/share/prometheus//"


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
    base = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-leaks"
    package = PACKAGES[name]
    try:
        try:
            kept = _kept(package, base)
        except (OSError, subprocess.CalledProcessError):
            # Lists of packages that are old, or that a fresh image has not.
            _run("apt-get", "update")
            kept = _kept(package, base)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ProgramMissing(
            f"no {name}: it is not on PATH, and Debian's package {package} can't be had ({error}); "
            "get it from https://prometheus.io/download and put it on PATH"
        ) from None
    return kept / "usr" / "bin" / name


def _kept(package: str, base: Path) -> Path:
    version = _version(package)
    kept = base / f"debian-{package}-{version}"
    if not kept.exists():
        _unpack(package, version, kept)
    return kept


def _version(package: str) -> str:
    said = _run("apt-cache", "show", "--no-all-versions", package)
    lines = [line for line in said.splitlines() if line.startswith("Version: ")]
    if not lines:
        raise OSError("apt knows no such package")
    return lines[0].partition(" ")[2]


def _unpack(package: str, version: str, to: Path) -> None:
    """Unpack beside *to*, so that the last step is one rename."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix="debian-") as name:
        folder = Path(name)
        _run("apt-get", "download", f"{package}={version}", folder=folder)
        (archive,) = folder.glob("*.deb")
        _run("dpkg-deb", "--extract", str(archive), "unpacked", folder=folder)
        # Debian's Alertmanager reads its templates from where it would be installed. From
        # now on, from below the folder that it runs in: the name is as long as before.
        manager = folder / "unpacked" / "usr" / "bin" / "prometheus-alertmanager"
        if manager.exists():
            manager.write_bytes(manager.read_bytes().replace(_SHARE, _BELOW))
        (folder / "unpacked").replace(to)


def _run(*command: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> int:
    """Print the path of a program; return 1 when there is none."""
    try:
        print(program(sys.argv[1], os.environ))
    except ProgramMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
