"""Processes to look into: they never saw this package, and say on request what is in them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What it is asked for comes by a thread of its own, so its main thread may wait for ever. What
# it says of itself is what a visitor could leave in it.
PROGRAM = """
import asyncio, gc, json, os, sys, threading

def about():
    # First: a thread that has ended holds nothing any more.
    folder = "/proc/self/task"
    running = len(os.listdir(folder)) if os.path.isdir(folder) else 0
    gc.collect()
    owners = [threading.Thread, threading, asyncio.Task, asyncio.tasks, asyncio.events,
              asyncio.BaseEventLoop, asyncio.AbstractEventLoop, os, sys]
    ours = []
    for each in gc.get_objects():
        module = getattr(each, "__module__", None) if callable(each) else None
        name = getattr(each, "__name__", None) if type(each) is type(sys) else module
        if type(name) is str and "otel_leaks" in name:
            ours.append(repr(each))
    return {
        "threads": running,
        "listed": sorted(each.name for each in threading.enumerate()),
        "modules": [name for name in sys.modules if "otel_leaks" in name],
        "path": list(sys.path),
        "patches": hash(tuple((id(owner), name, id(value)) for owner in owners
                        for name, value in sorted(vars(owner).items(), key=lambda e: e[0])
                        if callable(value))),
        "ours": ours,
        "hooks": [repr(sys.excepthook), repr(threading.excepthook)],
        "switch": sys.getswitchinterval(),
        "asyncgen": repr(sys.get_asyncgen_hooks()),
        "turns": turns,
    }

turns = 0
wake = threading.Event()

def answer():
    for line in sys.stdin:
        if line == "wake\\n":
            wake.set()
        print(json.dumps(about()), flush=True)
    os._exit(0)

threading.Thread(target=answer, daemon=True, name="answers").start()

async def leaked(event):
    await event.wait()

def blocked(event):
    event.wait()

def leak_threads(count):
    event = threading.Event()
    for _ in range(count):
        threading.Thread(target=blocked, args=(event,), daemon=True).start()
    return event

async def leak_tasks(count, busy=False):
    global turns
    event = asyncio.Event()
    tasks = [asyncio.create_task(leaked(event)) for _ in range(count)]
    await asyncio.sleep(0)
    print("ready", flush=True)
    while busy:
        turns += 1
        await asyncio.sleep(0)
    await event.wait()
"""

LEAKING = "held = leak_threads({threads})\nasyncio.run(leak_tasks({tasks}, {busy}))\n"
WAITING = """
print("ready", flush=True)
wake.wait()
wake.clear()
print("woke", flush=True)
wake.wait()
"""


class Target:
    """A running process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, what: str = "about") -> dict[str, Any]:
        """Return what it says about itself."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        line = self.line()
        while not line.startswith("{"):
            assert line, "the process has ended"
            line = self.line()
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> str:
        """End it; return what it wrote to stderr."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.stderr is not None
        errors = self.process.stderr.read()
        self.process.wait(60)
        return errors


@contextmanager
def running(
    main: str,
    *,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    user: int | None = None,
) -> Iterator[Target]:
    """
    Run a program that has this package nowhere on its path.

    Args:
        main: What follows PROGRAM; prints "ready".
        options: Of Python.
        env: Variables besides a plain environment.
        user: Whom it belongs to.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kwargs: dict[str, Any] = {} if user is None else {"user": user, "group": user}
    process = subprocess.Popen(
        [sys.executable, *options, "-S", "-c", PROGRAM + main],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, **(env or {})},
        cwd="/",
        **kwargs,
    )
    try:
        target = Target(process)
        line = target.line()
        if line != "ready":
            assert process.stderr is not None
            process.kill()
            raise AssertionError(f"{line}\n{process.stderr.read()}")
        yield target
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


def threads_of(pid: int) -> int:
    """Return how many threads the system runs for a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
