"""
What ``pytest --leaks`` costs a suite in which nothing leaks.

    python benchmarks/plugin.py [TESTS] [ROUNDS]
    python benchmarks/plugin.py --instructions [TESTS]

Empty tests, 100 a file, are run by pytest alone (no other plugins, which would only make
the difference smaller) in processes of their own: with --leaks and without, in turn, so
that a noisy machine is as noisy to both. What is compared is CPU time in user mode. The
budget is 5 %.

Where the machine is too noisy for that, --instructions counts the instructions of 500
and of 1,000 tests with valgrind, which come out the same each time, and reckons what
TESTS of them take.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PER_FILE = 100
BUDGET = 0.05
COMMAND = (
    *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull),
    *(f"-pno:{name}" for name in ("asyncio", "anyio", "xdist", "hypothesispytest")),
)
VARIANTS = (("without", ("--leaks=off",)), ("--leaks", ("--leaks",)))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment in which bytecode is kept, as where a package is installed."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    folders = {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "PYTEST_ADDOPTS": ""}
    return {**kept, **folders, "PYTHONHASHSEED": "0", **more}


def user_s(folder: Path, arguments: tuple[str, ...]) -> float:
    """Run the suite once; return the seconds of CPU that it took in user mode."""
    running = subprocess.Popen(
        [*COMMAND, *arguments, f"--rootdir={folder}", str(folder)],
        stdout=subprocess.DEVNULL,
        env=environment(folder),
    )
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        sys.exit(f"pytest {' '.join(arguments)} ended with {running.returncode}")
    return used.ru_utime


def instructions(folder: Path, arguments: tuple[str, ...], files: int) -> int:
    """Return how many instructions the first *files* of the suite take."""
    valgrind = (
        "valgrind",
        "--tool=cachegrind",
        "--cache-sim=no",
        "--cachegrind-out-file=/dev/null",
    )
    paths = [str(folder / f"test_file_{i}.py") for i in range(files)]
    done = subprocess.run(
        [*valgrind, *COMMAND, *arguments, f"--rootdir={folder}", *paths],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        env=environment(folder, PYTHONMALLOC="malloc"),
    )
    line = next(line for line in done.stderr.splitlines() if "refs:" in line)
    return int(line.rpartition(":")[2].replace(",", ""))


def make(folder: Path, tests: int) -> None:
    for i in range(tests // PER_FILE):
        source = "".join(f"def test_{j}():\n    pass\n\n\n" for j in range(PER_FILE))
        (folder / f"test_file_{i}.py").write_text(source)
    for _, arguments in VARIANTS:
        user_s(folder, arguments)  # Writes the .pyc files.


def count(tests: int) -> None:
    if shutil.which("valgrind") is None:
        sys.exit("no valgrind here: install it, or leave out --instructions")
    with tempfile.TemporaryDirectory() as made:
        make(Path(made), 1000)
        counts = {
            name: [instructions(Path(made), arguments, files) for files in (5, 10)]
            for name, arguments in VARIANTS
        }
    print(f"{'':10}{'start':>10}{'a test':>10}{f'{tests} tests':>14}  instructions, thousands")
    totals = []
    for name, (few, many) in counts.items():
        per_test = (many - few) / 500
        start = few - 500 * per_test
        totals.append(start + tests * per_test)
        print(f"{name:10}{start / 1e3:10.0f}{per_test / 1e3:10.1f}{totals[-1] / 1e3:14.0f}")
    more = totals[1] / totals[0] - 1
    print(
        f"--leaks costs {more:+.1%}; budget {BUDGET:.0%}: {'held' if more < BUDGET else 'MISSED'}"
    )


def main(tests: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make(folder, tests)
        times: dict[str, list[float]] = {name: [] for name, _ in VARIANTS}
        for i in range(rounds):
            order = VARIANTS if i % 2 == 0 else VARIANTS[::-1]
            for name, arguments in order:
                times[name].append(user_s(folder, arguments))
    print(f"{tests} empty tests, {rounds} rounds, seconds of user CPU")
    print(f"{'':10}{'best':>8}{'median':>8}{'us a test':>11}")
    for name, each in times.items():
        per_test_us = min(each) / tests * 1e6
        print(f"{name:10}{min(each):8.2f}{statistics.median(each):8.2f}{per_test_us:11.0f}")
    bare, watched = times.values()
    more = min(watched) / min(bare) - 1
    pairs = [after / before - 1 for before, after in zip(bare, watched, strict=True)]
    print(f"--leaks costs {more:+.1%} (best), {statistics.median(pairs):+.1%} (median of pairs)")
    print(f"budget {BUDGET:.0%}: {'held' if more < BUDGET else 'MISSED'}")


if __name__ == "__main__":
    if "--instructions" in sys.argv:
        sys.argv.remove("--instructions")
        count(int(sys.argv[1]) if len(sys.argv) > 1 else 10000)
        sys.exit()
    main(*(int(each) for each in [*sys.argv[1:3], *("10000", "5")[len(sys.argv) - 1 :]]))
