"""Programs of Debian's packages, unpacked into the cache: nothing is installed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from support.once import one_at_a_time

__all__ = ["unpacked"]


def unpacked(
    package: str,
    base: Path,
    *,
    dependencies: bool = False,
    finish: Callable[[Path], None] = lambda _: None,
) -> Path:
    """
    Return a folder with the files of a package, by its version.

    Args:
        package: Its name.
        base: The folder that the folders are kept in.
        dependencies: Also unpack those of its dependencies that this machine lacks.
        finish: Changes the files before they are used.

    Raises:
        OSError: There is no apt, or it knows no such package.
        CalledProcessError: The package can't be had.
    """
    try:
        return _kept(package, base, dependencies, finish)
    except (OSError, subprocess.CalledProcessError):
        # Lists of packages that are old, or that a fresh image has not.
        _run("apt-get", "update")
        return _kept(package, base, dependencies, finish)


def _kept(package: str, base: Path, dependencies: bool, finish: Callable[[Path], None]) -> Path:
    version = _version(package)
    kept = base / f"debian-{package}-{version.replace(':', '%')}"
    with one_at_a_time(base):
        if not kept.exists():
            needed = _missing(package) if dependencies else {package: version}
            _unpack(needed, kept, finish)
    return kept


def _version(package: str) -> str:
    said = _run("apt-cache", "show", "--no-all-versions", package)
    lines = [line for line in said.splitlines() if line.startswith("Version: ")]
    if not lines:
        raise OSError("apt knows no such package")
    return lines[0].partition(" ")[2]


def _missing(package: str) -> dict[str, str]:
    """Return what an installation would bring, with versions."""
    said = _run("apt-get", "install", "--simulate", "--no-install-recommends", package)
    # Inst redis-server (5:7.0.15-1 Debian:12/stable [amd64]); an older one may be there.
    return dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", said, re.MULTILINE))


def _unpack(versions: dict[str, str], to: Path, finish: Callable[[Path], None]) -> None:
    """Unpack beside *to*, so that the last step is one rename."""
    with tempfile.TemporaryDirectory(dir=to.parent, prefix="debian-") as name:
        folder = Path(name)
        wanted = [f"{package}={version}" for package, version in versions.items()]
        _run("apt-get", "download", *wanted, folder=folder)
        for archive in folder.glob("*.deb"):
            _run("dpkg-deb", "--extract", str(archive), "unpacked", folder=folder)
        finish(folder / "unpacked")
        (folder / "unpacked").replace(to)


def _run(*command: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout
