"""What a user gets from pip has the examples inside."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from otel_leaks.shipped import DESCRIPTIONS

pytestmark = pytest.mark.e2e

PROJECT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path = PROJECT) -> str:
    # Without a path to the checkout: what runs is what was installed.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment that can build the package, and has nothing else."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", environment)
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, *PIP, "hatchling")
    return python


PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")


def test_the_examples_are_listed_and_written_from_the_installed_package(
    python: Path, tmp_path: Path
) -> None:
    # From the sdist, as pip does where no wheel fits, and as package builders do.
    run(python, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "straight")
    run(python, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path)
    (sdist,) = tmp_path.glob("*.tar.gz")
    wheeling = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(python, *wheeling, "--wheel-dir", tmp_path, sdist)
    (wheel,) = tmp_path.glob("*.whl")
    (straight,) = (tmp_path / "straight").glob("*.whl")
    inside = zipfile.ZipFile(wheel).namelist()
    assert inside == zipfile.ZipFile(straight).namelist()
    examples = "otel_leaks/examples/"
    assert {each.removeprefix(examples) for each in inside if each.startswith(examples)} == set(
        DESCRIPTIONS
    )

    run(python, *PIP, "--no-deps", wheel)
    command = python.with_name("otel-leaks")
    listed = run(command, "examples", cwd=tmp_path)
    assert [line.split()[0] for line in listed.splitlines()] == list(DESCRIPTIONS)

    run(command, "examples", "--to", "mine", cwd=tmp_path)
    written = tmp_path / "mine"
    assert {
        path.relative_to(written).as_posix(): path.read_bytes()
        for path in written.rglob("*")
        if path.is_file()
    } == {name: content(name) for name in DESCRIPTIONS}


def content(name: str) -> bytes:
    folder = PROJECT if name.startswith("docs/") else PROJECT / "examples"
    return (folder / name).read_bytes()
