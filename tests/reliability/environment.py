"""
The virtual environments in which the servers and the neighbors of these tests run.

    python -m reliability.environment            # makes them, and prints where they are
    python -m reliability.environment services   # makes the one of tests/services

Each is kept under the cache until its list of packages changes. The package itself is not part
of it: each run of the tests installs the tree as it is into a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.once import one_at_a_time

__all__ = ["NEIGHBORS", "SERVICES", "EnvironmentMissing", "ServersEnvironment", "environment"]

PROJECT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
NEIGHBORS = Path(__file__).with_name("neighbors.txt")
SERVICES = PROJECT / "tests" / "services" / "requirements.txt"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-leaks"
LIMIT_S = 900


class EnvironmentMissing(Exception):  # noqa: N818 - it is an answer, not a fault
    """Says why there is no environment, and how to get one."""


@dataclass(frozen=True)
class ServersEnvironment:
    """Programs, and the variables with which they find the package."""

    bin: Path
    variables: Mapping[str, str]

    @property
    def python(self) -> str:
        return str(self.bin / "python")

    def program(self, name: str) -> str:
        return str(self.bin / name)

    def zero_code(self, name: str) -> list[str]:
        """Return the start of a command line that instruments a program by name."""
        return [self.program("opentelemetry-instrument"), self.program(name)]


def environment(package: Path, requirements: Path = REQUIREMENTS) -> ServersEnvironment:
    """
    Return the environment, made first where it is not there yet.

    Args:
        package: The folder that the package is installed into.
        requirements: What is installed, pinned.

    Raises:
        EnvironmentMissing: It could not be made; says why.
    """
    python = base(requirements) / "bin" / "python"
    if not package.exists():
        _run(
            *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-build-isolation", "--target", str(package), str(PROJECT)),
        )
    return ServersEnvironment(python.parent, {"PYTHONPATH": str(package)})


def base(requirements: Path = REQUIREMENTS) -> Path:
    """Return the environment without the package."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    found = CACHE / "servers" / f"{platform.python_version()}-{digest}"
    ready = found / ".ready"
    with one_at_a_time(CACHE / "servers"):
        if not ready.exists():
            shutil.rmtree(found, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(found))
            _run(
                *(str(found / "bin" / "python"), "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", "--no-deps", "-r", str(requirements)),
            )
            ready.touch()
    return found


def _run(*command: str) -> None:
    inherited = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME"}}
    try:
        subprocess.run(
            command,
            check=True,
            env=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stdout", None) or str(error)).strip().splitlines()[-3:]
        raise EnvironmentMissing(
            "the environment of real servers could not be made; run it again with access to a "
            f"package index: {' '.join(said)}"
        ) from None


if __name__ == "__main__":
    for each in (SERVICES,) if "services" in sys.argv[1:] else (REQUIREMENTS, NEIGHBORS):
        sys.stdout.write(f"{base(each)}\n")
