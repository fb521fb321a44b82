"""Runs one suite, with otel-leaks and without, and returns what was seen."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from field.suites import Suite
from reliability.environment import CACHE, PROJECT, base
from services.servers import redis
from support.once import one_at_a_time

__all__ = ["Ran", "Workplace"]

RECORDER = Path(__file__).with_name("recorder")
LIMIT_S = 1800


@dataclass(frozen=True)
class Ran:
    """What one run of a suite came to."""

    mode: str | None
    """Of ``--leaks``; None is without otel-leaks."""
    tests: Mapping[str, Mapping[str, Any]]
    """By node id: ``outcomes`` ([phase, outcome] each), ``failure``, ``leaks``."""
    leaks: list[dict[str, Any]]
    """As ``--leaks-json`` has them."""
    cpu_s: float
    output: str

    @property
    def summary(self) -> str:
        """Return the line in which pytest counts."""
        lines = re.findall(r"^\d+ .*\bin \d+\.\d\ds.*$", self.output, re.MULTILINE)
        return lines[-1] if lines else ""

    @property
    def troubles(self) -> list[str]:
        """Return what otel-leaks could not do: a defect of it, whatever the outcomes are."""
        lines = (line.strip() for line in self.output.splitlines())
        return [line for line in lines if line.startswith("leaks: ") and " can't be " in line]

    def outcome(self, node_id: str) -> str:
        """Return the outcome of a test as pytest counts it, all phases together."""
        test = self.tests.get(node_id)
        if test is None:
            return "not run"
        phases = [f"{when} {outcome}" for when, outcome in test["outcomes"]]
        return ", ".join(each for each in phases if not each.endswith(" passed")) or "passed"


class Workplace:
    """Where a suite is run: its environment, its source, and otel-leaks as it is now."""

    def __init__(self, suite: Suite, package: Path) -> None:
        self.suite = suite
        self.python = base(suite.requirements) / "bin" / "python"
        self.package = package
        self.source = _source(suite, self.python)
        if not package.exists():
            _install(self.python, package)
        self._warm_up()

    def _warm_up(self) -> None:
        """Let pytest write its bytecode of otel-leaks, as it does once where it is installed."""
        with TemporaryDirectory(prefix="otel-leaks-field-") as name:
            subprocess.run(
                [str(self.python), "-m", "pytest", "-q", "--leaks=warn"],
                cwd=name,
                env=self._variables(Path(name), [str(self.package)]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=LIMIT_S,
                check=False,
            )

    def run(self, mode: str | None, *tests: str) -> Ran:
        """Run the suite, or some tests of it; without otel-leaks where *mode* is None."""
        server = redis() if self.suite.server == "redis" else nullcontext("")
        with TemporaryDirectory(prefix="otel-leaks-field-") as name, server as url:
            folder = Path(name)
            port = url.rpartition(":")[2].partition("/")[0]
            suite = folder / "suite"
            shutil.copytree(self.source, suite, symlinks=True)
            for each in self.suite.shadows:
                shutil.rmtree(suite / each)
            arguments = [each.replace("{port}", port) for each in self.suite.arguments]
            if tests:
                arguments = [*_options(arguments), *tests]
            paths = [str(RECORDER)]
            if mode is not None:
                paths.append(str(self.package))
                arguments += [f"--leaks={mode}", f"--leaks-json={folder / 'leaks.json'}"]
            command = [str(self.python), "-m", "pytest", "-q", "-p", "field_recorder"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            ended = subprocess.run(
                [*command, "-p", "no:cacheprovider", *arguments],
                cwd=suite,
                env=self._variables(folder, paths),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=LIMIT_S,
                check=False,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            outcomes, leaks = folder / "outcomes.json", folder / "leaks.json"
            if not outcomes.exists():
                raise RuntimeError(f"{self.suite.name} did not end:\n{ended.stdout[-3000:]}")
            return Ran(
                mode,
                json.loads(outcomes.read_text("utf-8"))["tests"],
                self._without_folders(json.loads(leaks.read_text("utf-8"))["leaks"], suite)
                if leaks.exists()
                else [],
                after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                ended.stdout,
            )

    def _without_folders(self, leaks: Any, suite: Path) -> list[dict[str, Any]]:
        """Name files by their place in the suite, or in what is installed: these move."""
        text = json.dumps(leaks).replace(f"{suite}{os.sep}", "")
        for each in self.python.parents[1].glob("lib/python*/site-packages"):
            text = text.replace(f"{each}{os.sep}", "")
        found: list[dict[str, Any]] = json.loads(text)
        return found

    def _variables(self, folder: Path, paths: list[str]) -> dict[str, str]:
        kept = ("HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(paths),
            "FIELD_OUTCOMES": str(folder / "outcomes.json"),
            **dict(self.suite.variables),
        }


def _install(python: Path, folder: Path) -> None:
    """Install otel-leaks as it is now into *folder*, without what it needs in production."""
    subprocess.run(
        [
            *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--target", str(folder), str(PROJECT)),
        ],
        check=True,
        timeout=LIMIT_S,
    )


def _options(arguments: list[str]) -> list[str]:
    """Return the arguments without the paths, which single tests take the place of."""
    taking = {"-p", "-o", "-m", "-k", "-n", "-W", "--timeout"}
    kept: list[str] = []
    for i, each in enumerate(arguments):
        follows = i > 0 and arguments[i - 1] in taking
        if each.startswith("-") or follows:
            kept.append(each)
    return kept


def _source(suite: Suite, python: Path) -> Path:
    """Return the unpacked source distribution of a suite, kept under the cache by version."""
    folder = CACHE / "field" / f"{suite.name}-{suite.version}"
    ready = folder / ".ready"
    with one_at_a_time(CACHE / "field"):
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            subprocess.run(
                [
                    *(str(python), "-m", "pip", "download", "--quiet", "--no-deps"),
                    *("--disable-pip-version-check", "--no-binary", suite.name),
                    *("--dest", str(folder), f"{suite.name}=={suite.version}"),
                ],
                check=True,
                timeout=LIMIT_S,
            )
            (archive,) = folder.glob("*.tar.gz")
            with tarfile.open(archive) as opened:
                opened.extractall(folder / "source", filter="data")
            archive.unlink()
            ready.touch()
    (source,) = (folder / "source").iterdir()
    return source
