"""
What it costs to tell of many leaked tasks, beside pyleak and goleak.

    python benchmarks/evidence.py [LEAKS] [ROUNDS]

LEAKS tasks, three coroutines deep, are left pending, and the time is taken from the end
of the block to the text of the error in hand: looking, stacks, report. Each run has a
process of its own; they are interleaved and the best is compared. pyleak (`pip install
pyleak`, for this benchmark only) looks once, so beside it stands one look of ours;
goleak (built with Go from benchmarks/goleak) looks 20 times, as verify_none does.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TIMES_FASTER = 20
"""Than pyleak, at least."""
LIMIT_S = 1200
GOLEAK = Path(__file__).with_name("goleak")

BODY = """
import asyncio, sys, time

async def innermost(event):
    await event.wait()

async def middle(event):
    await innermost(event)

async def outermost(event):
    await middle(event)

async def main(leaks):
    event = asyncio.Event()
    kept = []
    try:
        async with {block}:
            kept += [asyncio.create_task(outermost(event)) for _ in range(leaks)]
            await asyncio.sleep(0)
            before = time.perf_counter(), time.process_time()
    except {error} as error:
        text = str(error)
    took = time.perf_counter() - before[0], time.process_time() - before[1]
    print(*took, len(text))
    event.set()
    await asyncio.gather(*kept)

{imports}
asyncio.run(main(int(sys.argv[1])))
"""
OURS = BODY.format(
    imports="from otel_leaks.testing import Grace, LeaksFound, verify_none",
    block="verify_none(grace=Grace(attempts=1))",
    error="LeaksFound",
)
OURS_20 = OURS.replace("grace=Grace(attempts=1)", "")
PYLEAK = BODY.format(
    imports="from pyleak import TaskLeakError, no_task_leaks",
    block='no_task_leaks(action="raise")',
    error="TaskLeakError",
)
PYLEAK_ORIGINS = PYLEAK.replace('"raise")', '"raise", enable_creation_tracking=True)')

Measure = tuple[float, float, int]
"""Seconds of the clock, seconds of CPU, characters of the message."""


def measured(command: list[str]) -> Measure:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    if done.returncode:
        sys.exit(done.stderr)
    wall_s, cpu_s, size = done.stdout.split()
    return float(wall_s), float(cpu_s), int(size)


def goleak_program(folder: Path) -> Path | None:
    go = shutil.which("go")
    if go is None:
        print("goleak: skipped, there is no Go here (https://go.dev/dl)\n")
        return None
    program = folder / "goleak"
    built = subprocess.run(
        [go, "build", "-o", str(program), "."],
        cwd=GOLEAK,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        print(f"goleak: skipped, it can't be built: {built.stderr.strip().splitlines()[-1]}\n")
        return None
    return program


def main(leaks: int, rounds: int) -> None:
    number = str(leaks)
    commands = {"otel-leaks, one look": [sys.executable, "-c", OURS, number]}
    if importlib.util.find_spec("pyleak") is not None:
        commands["pyleak"] = [sys.executable, "-c", PYLEAK, number]
        commands["pyleak, with origins"] = [sys.executable, "-c", PYLEAK_ORIGINS, number]
    else:
        print("pyleak: skipped, it is not installed (pip install pyleak)\n")
    with tempfile.TemporaryDirectory() as folder:
        program = goleak_program(Path(folder))
        commands["otel-leaks, 20 looks"] = [sys.executable, "-c", OURS_20, number]
        if program is not None:
            commands["goleak, 20 looks"] = [str(program), number]
        runs: dict[str, list[Measure]] = {name: [] for name in commands}
        for i in range(rounds):
            for name in list(commands)[:: 1 if i % 2 == 0 else -1]:
                runs[name].append(measured(commands[name]))
    best = {name: min(each, key=lambda run: run[1]) for name, each in runs.items()}
    print(f"{leaks} leaks, best of {rounds}, on {os.cpu_count()} cores")
    print(f"{'':22}{'seconds':>10}{'of CPU':>10}{'message':>14}")
    for name, (wall_s, cpu_s, size) in best.items():
        print(f"{name:22}{wall_s:10.3f}{cpu_s:10.3f}{size:10} chars")
    one, twenty = best["otel-leaks, one look"], best["otel-leaks, 20 looks"]
    if "pyleak" in best:
        plain = best["pyleak"][1] / one[1]
        same = best["pyleak, with origins"][1] / one[1]
        held = "held" if same >= TIMES_FASTER else "MISSED"
        print(f"{same:.1f} times faster than pyleak for the same evidence", end=" ")
        print(f"(target {TIMES_FASTER}: {held}), {plain:.1f} times than pyleak without origins")
    if "goleak, 20 looks" in best:
        ratio = best["goleak, 20 looks"][1] / twenty[1]
        print(
            f"{ratio:.1f} times faster than goleak (target 1: {'held' if ratio > 1 else 'MISSED'})"
        )


if __name__ == "__main__":
    main(*(int(each) for each in [*sys.argv[1:3], *("100000", "3")[len(sys.argv) - 1 :]]))
