"""
The unit tests on every Python from 3.10 on that can be had here.

    python tests/support/matrix.py                # all but the one that runs this
    python tests/support/matrix.py 3.10 3.14      # these
    python tests/support/matrix.py 3.14 -- -k churn   # more arguments for pytest

A version is looked for on PATH, among pyenv's versions, and, from 3.14 on, in Debian
sid (see sid.py). Each gets a virtual environment from tests/requirements.txt, kept
under the cache until these change. A version that can't be had is skipped with the way
to get it; in CI, where the variable CI is set, that is a failure.

Branch coverage is measured on the way, and reported at the end (see covered.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.again import flaky

REQUIRED = ("3.10", "3.11", "3.12", "3.13", "3.14")
OPTIONAL = ("3.15",)
"""Tested where it can be had; not waited for in CI."""
IN_SID = ("3.14", "3.15")

LIMIT_S = 2400
"""Of one version's tests; what takes longer hangs."""

SAME_EVERYWHERE = (
    "fuzz",
    "scenarios",
    "simulation",
    "test_again.py",
    "test_architecture.py",
    "test_compose.py",
    "test_coverage.py",
    "test_datadog.py",
    "test_docs.py",
    "test_examples.py",
    "test_grafana.py",
    "test_reliability_page.py",
    "test_services_page.py",
    "test_shipped.py",
)
"""What no version of Python changes, and what takes minutes and has a target of its own."""
NOT_NEEDED = ("datadog-api-client", "grafana-foundation-sdk")
"""What only these need; Datadog's client alone has ten thousand files."""
AT_THE_ENDS = (
    *("cli", "demo", "known", "patterns", "pytest_plugin", "viewer"),
    *("detect", "monitor", "report", "telemetry", "test_growing_services.py", "test_outlived.py"),
)
"""Runs of whole programs, and what only counts or writes: on the oldest and the newest stable
version, and here."""
ENDS = ("3.10", "3.14")
FROM_WHEEL = "3.12"
"""Tests what a user installs, the wheel, in the place of the tree."""
MEASURED = ("3.14",)
"""Where branch coverage is measured: on the first version on which that costs next to nothing."""

AT_ONCE = 2
"""Versions, and tests of each: half of the time they wait for processes and threads."""

SELECTED = (
    ("--leaks", "-m", "not (e2e or reliability or services or companions or browser or unwatched)"),
    ("-m", "unwatched"),
)
"""What is run one after the other, as `make unit`, `scenarios` and `unwatched` do."""

PROJECT = Path(__file__).resolve().parents[2]
SID = Path(__file__).with_name("sid.py")
AGAIN = Path(__file__).with_name("again.py")
REQUIREMENTS = PROJECT / "tests" / "requirements.txt"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-leaks"

_PROBE = "import ensurepip, platform, venv; print(platform.python_version())"


class UnavailableError(Exception):
    """Says why a version can't be had."""


class BrokenError(Exception):
    """Says why a version that is here could not be made ready."""


@dataclass(frozen=True)
class Place:
    """An interpreter, and where it sees what."""

    version: str
    """``3.14``."""
    full: str
    """``3.14.2``, and where it was found."""
    python: str
    home: Path
    """Folder of its virtual environments, as this process sees it."""
    tree: Path
    """The project's files, as this process sees them."""
    root: Path | None = None
    """Where its file system begins, when it is not this machine's."""

    def inside(self, path: Path) -> str:
        """Return *path* as the interpreter sees it."""
        return str(path) if self.root is None else f"/{path.relative_to(self.root)}"

    def run(
        self, *argv: str | Path, log: IO[str], variables: Mapping[str, Path] | None = None
    ) -> int:
        """
        Run a command in the project's folder; return its status, 124 when it hangs.

        Args:
            argv: The command; each path as this process sees it.
            log: Takes its output.
            variables: Paths to add to its environment.
        """
        command = [self.inside(each) if isinstance(each, Path) else each for each in argv]
        if variables:
            # Not for the Python of this machine, which may have to start that of the place.
            command = ["env", *(f"{k}={self.inside(v)}" for k, v in variables.items()), *command]
        if self.root is not None:
            command = [sys.executable, str(SID), "run", self.inside(self.tree), *command]
        log.flush()
        try:
            return subprocess.run(
                command,
                cwd=self.tree,
                env=_clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            log.write(f"\nkilled after {LIMIT_S} s: {' '.join(command)}\n")
            return 124


@dataclass(frozen=True)
class Outcome:
    """What became of one version."""

    version: str
    python: str = "-"
    ran: str = "unit tests"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    setup_s: float = 0.0
    tests_s: float = 0.0
    coverage: str = ""
    """The report, where it was measured."""
    is_covered: bool = True
    flaky: tuple[str, ...] = ()
    """Tests that passed only at the second run, alone."""

    @property
    def cells(self) -> tuple[str, ...]:
        counts = (str(self.passed), str(self.failed), str(self.skipped))
        return (
            self.version,
            self.python,
            *counts,
            f"{self.setup_s:.0f}",
            f"{self.tests_s:.0f}",
            self.ran,
        )


COLUMNS = ("version", "python", "passed", "failed", "skipped", "set-up s", "tests s", "ran")


def find(version: str) -> Place:
    """
    Return the interpreter of *version*: of PATH, of pyenv, or of Debian sid.

    Raises:
        UnavailableError: There is none.
    """
    home = CACHE / "venvs" / _digest(str(PROJECT).encode())
    for candidate, origin in _candidates(version):
        full = _probe([str(candidate), "-c", _PROBE])
        if full.rpartition(".")[0] == version:
            return Place(version, f"{full} ({origin})", str(candidate), home, PROJECT)
    ways = "put it on PATH (python{0}), or `pyenv install {0}`"
    if version not in IN_SID:
        raise UnavailableError(ways.format(version))
    ways += ", or run as root on Linux with debootstrap"
    got = subprocess.run(
        [sys.executable, str(SID), "root"], stdout=subprocess.PIPE, text=True, check=False
    )
    if got.returncode != 0:
        raise UnavailableError(ways.format(version))
    root = Path(got.stdout.strip())
    full = _probe([sys.executable, str(SID), "run", "/", f"python{version}", "-c", _PROBE])
    if full.rpartition(".")[0] != version:
        raise UnavailableError(f"Debian sid has no Python {version}; {ways.format(version)}")
    home = root / "opt" / "otel-leaks" / home.name
    python = f"/usr/bin/python{version}"
    return Place(version, f"{full} (Debian sid)", python, home, home / "tree", root)


def _candidates(version: str) -> Iterator[tuple[Path, str]]:
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield Path(on_path), "PATH"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = [
        each
        for each in pyenv.glob(f"versions/{version}.*")
        if each.name.rpartition(".")[2].isdigit()  # Not 3.13.0t, 3.15.0a1, 3.12.1-debug.
    ]
    for each in sorted(installed, key=lambda e: int(e.name.rpartition(".")[2]), reverse=True):
        yield each / "bin" / "python", "pyenv"
    # The Python that runs this may have no name with its version on PATH.
    yield Path(sys.base_prefix) / "bin" / "python3", "this one"


def _probe(command: list[str]) -> str:
    """Return what an interpreter says of itself, nothing when it is of no use."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def prepare(place: Place, log: IO[str]) -> Path:
    """
    Return the Python of a virtual environment with all that the tests need.

    Raises:
        BrokenError: It could not be made; the log says more.
    """
    place.home.mkdir(parents=True, exist_ok=True)
    if place.root is not None:
        _copy_tree(place.tree)
    full = place.full.partition(" ")[0]
    environment = place.home / f"{full}-{_digest(REQUIREMENTS.read_bytes())}"
    python = environment / "bin" / "python"
    ready = environment / ".ready"
    # The project is installed anew when its metadata changed, entry points for one.
    metadata = _digest((PROJECT / "pyproject.toml").read_bytes())
    was = ready.read_text(encoding="ascii") if ready.exists() else ""
    is_built = place.version == FROM_WHEEL
    if was == metadata and not is_built:
        return python
    if not was:
        for stale in place.home.glob(f"{place.version}.*"):
            shutil.rmtree(stale)
        _do(place, log, place.python, "-m", "venv", environment)
    pip: tuple[str | Path, ...] = (python, "-m", "pip", "install", "--quiet", "--no-deps")
    pip += ("--disable-pip-version-check", "--no-compile")
    project = ("--force-reinstall", ".") if is_built else ("--editable", ".")
    if place.root is None:
        if not was:
            _do(place, log, *pip, *_pins(place.version))
        _do(place, log, *pip, *project)
    else:
        # What the machine knows of certificates, proxies and mirrors, the other system
        # does not: download outside, install inside.
        wheels = environment / "wheels"
        if not was:
            missing = _download(place.version, wheels, log)
            files = sorted(wheels.glob("*.whl"))
            _do(place, log, *pip, "--no-index", *files)
            shutil.rmtree(wheels)
            (environment / "missing").write_text(" ".join(missing), encoding="ascii")
        _do(place, log, *pip, "--no-index", "--no-build-isolation", *project)
    ready.write_text(metadata, encoding="ascii")
    return python


def _do(place: Place, log: IO[str], *argv: str | Path) -> None:
    if place.run(*argv, log=log) != 0:
        raise BrokenError("could not be set up")


def _download(version: str, to: Path, log: IO[str]) -> list[str]:
    """
    Download wheels for another Python than the one that downloads.

    Returns:
        What a version that is not required has no wheels of yet.
    """
    machine = platform.machine()
    tag = f"cp{version.replace('.', '')}"
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(41, 4, -1)]
    platforms += [f"{each}_{machine}" for each in ("manylinux2014", "manylinux1", "linux")]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    pip += ["--dest", str(to), "--only-binary=:all:", "--implementation=cp"]
    pip += [f"--python-version={version}"]
    pip += [f"--abi={abi}" for abi in (tag, "abi3", "none")]
    pip += [f"--platform={each}" for each in platforms]
    # pip would read the markers as the Python does that runs it.
    pins = list(_pins(version))
    missing: list[str] = []
    while (failure := _download_of([*pip, "--no-deps", *pins], log)) is not None:
        lacks = re.search(r"No matching distribution found for (\S+)", failure)
        if version in REQUIRED or lacks is None or lacks[1] not in pins:
            raise BrokenError(f"not all wheels could be downloaded: {failure}")
        pins.remove(lacks[1])
        missing.append(lacks[1])
    # What both need is there already; a later version of it would stand beside the pinned one.
    pinned = to / "pins.txt"
    pinned.write_text("\n".join(each for each in pins if "[" not in each), encoding="ascii")
    failure = _download_of([*pip, "--constraint", str(pinned), "hatchling", "editables"], log)
    if failure is not None:
        raise BrokenError(f"no hatchling to build with: {failure}")
    return missing


def _download_of(command: list[str], log: IO[str]) -> str | None:
    """Run pip; return its last line when it failed."""
    done = subprocess.run(
        command,
        env=_clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    log.write(done.stdout)
    return None if done.returncode == 0 else (done.stdout.splitlines() or [""])[-1]


def _pins(version: str) -> Iterator[str]:
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        pin = line.partition("#")[0].strip()
        if pin:
            requirement = Requirement(pin)
            if requirement.name in NOT_NEEDED:
                continue
            if requirement.marker is None or requirement.marker.evaluate(environment):
                requirement.marker = None
                yield str(requirement)


_copying = threading.Lock()
_copied: set[Path] = set()


def _copy_tree(to: Path) -> None:
    """
    Copy what git tracks, and what it would: the working tree without its products.

    Once, as two versions of one system run from the same copy, at the same time.
    """
    with _copying:
        if to not in _copied:
            _copy_tree_anew(to)
            _copied.add(to)


def _copy_tree_anew(to: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        raise BrokenError("git could not list the project's files")
    shutil.rmtree(to, ignore_errors=True)
    for name in filter(None, listed.stdout.split("\0")):
        source = PROJECT / name
        if source.is_file():  # One that was deleted is still tracked.
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name)


def test(place: Place, python: Path, arguments: Sequence[str], log: IO[str]) -> Outcome:
    """Run the tests that need nothing but Python."""
    environment = python.parents[1]
    are_all = not arguments
    what = "unit tests"
    if place.version == FROM_WHEEL:
        what += " of the wheel"
    missing = environment / "missing"
    if missing.exists() and missing.read_text(encoding="ascii"):
        # Only the end-to-end tests need more than the package does.
        what += f", tests/e2e not imported: no wheel of {missing.read_text(encoding='ascii')}"
        arguments = ["--ignore=tests/e2e", *arguments]
    outcome = Outcome(place.version, place.full, what)
    measured: Path | None = None
    variables: dict[str, Path] = {}
    if place.version in MEASURED:
        measured = environment / "measured"
        shutil.rmtree(measured, ignore_errors=True)
        measured.mkdir()
        # coverage.py installs what has each interpreter look at these as it starts.
        variables["COVERAGE_PROCESS_START"] = place.tree / "pyproject.toml"
        variables["COVERAGE_FILE"] = measured / "of"
    for selected in SELECTED:
        report = environment / "report.xml"
        report.unlink(missing_ok=True)
        status = place.run(
            *(python, place.tree / AGAIN.relative_to(PROJECT), report, *selected),
            *("--quiet", "--tb=short", "-o", "junit_family=xunit2"),
            # The same examples for each version, and time enough to find them.
            *("-n", str(AT_ONCE), "--hypothesis-profile=ci", *arguments),
            *(f"--ignore=tests/{each}" for each in _left_out(place.version)),
            log=log,
            variables=variables,
        )
        outcome = _plus(outcome, report, status)
    if measured is not None and are_all:  # Of some tests it would say nothing.
        outcome = _with_coverage(outcome, place, python, measured)
    # What found no tests at all has failed too.
    return outcome if outcome.passed else replace(outcome, failed=max(outcome.failed, 1))


def _with_coverage(outcome: Outcome, place: Place, python: Path, measured: Path) -> Outcome:
    """Add the report of what was measured, by the Python on which it was: lines differ."""
    script = place.tree / SID.relative_to(PROJECT).with_name("covered.py")
    with (measured.parent / "coverage.txt").open("w+", encoding="utf-8") as log:
        status = place.run(python, script, measured, log=log)
        log.seek(0)
        return replace(outcome, coverage=log.read(), is_covered=status == 0)


def _left_out(version: str) -> tuple[str, ...]:
    return SAME_EVERYWHERE if version in ENDS else SAME_EVERYWHERE + AT_THE_ENDS


def _plus(outcome: Outcome, report: Path, status: int) -> Outcome:
    """Add what one run of pytest reported, and how it ended."""
    total = failed = skipped = 0
    outcome = replace(outcome, flaky=(*outcome.flaky, *flaky(report)))
    if report.exists():
        for suite in ET.parse(report).iter("testsuite"):
            total += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
    if status not in {0, 5}:  # 5: the arguments left no test of these.
        # Crashed or hung: what never ran has failed too.
        failed = max(failed, 1)
        if status != 1:
            outcome = replace(outcome, ran=f"{outcome.ran}, ended with status {status}")
    return replace(
        outcome,
        passed=outcome.passed + max(total - failed - skipped, 0),
        failed=outcome.failed + failed,
        skipped=outcome.skipped + skipped,
    )


def check(version: str, arguments: list[str]) -> Outcome:
    """Find, prepare and test one version, and print what it said when it failed."""
    started = time.monotonic()
    try:
        place = find(version)
    except UnavailableError as error:
        must = version in REQUIRED and bool(os.environ.get("CI"))
        outcome = Outcome(version, failed=int(must), ran=f"nothing: {error}")
        return replace(outcome, setup_s=time.monotonic() - started)
    logs = CACHE / "logs" / place.home.name
    logs.mkdir(parents=True, exist_ok=True)
    path = logs / f"{version}.log"
    with path.open("w+", encoding="utf-8", errors="replace") as log:
        ready_at = started
        try:
            python = prepare(place, log)
            ready_at = time.monotonic()
            outcome = test(place, python, arguments, log)
        except BrokenError as error:
            ready_at = time.monotonic()
            must = version in REQUIRED
            outcome = Outcome(version, place.full, failed=int(must), ran=f"nothing: {error}")
        log.seek(0)
        _say(version, log.read(), failed=not outcome.passed or bool(outcome.failed))
    return replace(outcome, setup_s=ready_at - started, tests_s=time.monotonic() - ready_at)


_printing = threading.Lock()


def _say(version: str, output: str, *, failed: bool) -> None:
    lines = output.splitlines()
    with _printing:
        if failed:
            print(f"\n---- Python {version} ----\n{output}", flush=True)
        else:
            print(f"Python {version}: {lines[-1] if lines else 'no output'}", flush=True)


def _clean_environment() -> dict[str, str]:
    """
    Return this process's environment without what belongs to its own Python.

    Nor with what keeps a Python from writing bytecode: each of the hundreds that the tests
    start would compile all it imports.
    """
    own = {"VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "PYENV_VERSION", "__PYVENV_LAUNCHER__"}
    own.add("PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in own}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for another matrix of these same files: it uses the same environments."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"matrix-{_digest(str(PROJECT).encode())}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another matrix of this folder", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(argv: list[str]) -> int:
    cut = argv.index("--") if "--" in argv else len(argv)
    # `make test` has run them on its own.
    own = ".".join(platform.python_version_tuple()[:2])
    others = [each for each in (*REQUIRED, *OPTIONAL) if each != own]
    versions, arguments = argv[:cut] or others, argv[cut + 1 :]
    unknown = [each for each in versions if each not in REQUIRED + OPTIONAL]
    if unknown:
        print(f"{', '.join(unknown)}: one of {', '.join(REQUIRED + OPTIONAL)}", file=sys.stderr)
        return 2
    # One that needs a sid first takes longest.
    slow_first = sorted(versions, key=lambda each: each != IN_SID[0])
    with _alone():
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            jobs = {each: pool.submit(check, each, arguments) for each in slow_first}
            outcomes = [jobs[each].result() for each in versions]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    print("\n" + _table([COLUMNS, *(each.cells for each in outcomes)]) + "\n")
    failed = sum(each.failed for each in outcomes)
    print(f"{sum(each.passed for each in outcomes)} passed, {failed} failed")
    twice = [f"  {each.version}  {name}" for each in outcomes for name in each.flaky]
    if twice:
        print("passed only at the second run, alone; to be mended:", *twice, sep="\n")
    print(*filter(None, (each.coverage for each in outcomes)), sep="\n")
    return 1 if failed or not all(each.is_covered for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
