"""
Keeps the pages true: their code is the code that runs, their messages are real.

In a page a comment before a fenced block says what the block is:

    <!-- code: patterns/worker/leaking.py -->
    <!-- message: patterns/worker/leaking.py -->

`python tests/patterns/pages.py` writes all blocks anew; tests compare them.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.forking import Forking

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "testing.md",
    *(ROOT / "docs" / "patterns" / f"{each}.md" for each in ("subscriber", "response", "worker")),
)

_BLOCK = re.compile(r"(<!-- (code|message): (\S+) -->\n```\w+\n)(.*?)(```\n)", re.DOTALL)


@dataclass(frozen=True)
class Run:
    """What pytest --leaks said of one program."""

    code: int
    output: str

    @property
    def message(self) -> str:
        """The failure as it is printed, without pytest's own lines around it."""
        found = re.search(
            r"^(\d+ leaked .*?)\n(?=[=_-]{10,})", self.output, re.DOTALL | re.MULTILINE
        )
        assert found is not None, self.output
        return found[1].rstrip() + "\n"


@functools.cache
def run(program: str) -> Run:
    """Run a file of tests/ through pytest --leaks, in a folder and process of its own."""
    path = TESTS / program
    with tempfile.TemporaryDirectory() as folder:
        stem = path.parent.name + path.stem.removeprefix("leaking").removeprefix("fixed")
        (Path(folder) / f"test_{stem}.py").write_text(path.read_text(encoding="utf-8"), "utf-8")
        return pytest_in(folder, "--leaks", "-o", "asyncio_default_fixture_loop_scope=function")


server: Forking | None = None
"""Starts pytest at once, where there is one."""


def pytest_in(folder: str | Path, *args: str) -> Run:
    """Run pytest in *folder*, away from the settings of this project and of this run."""
    away = ("PYTEST_", "COV_", "GITHUB_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(away)}
    # Hypothesis takes longer to be imported than all of these runs.
    args = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--rootdir", ".", *args)
    if server is not None and server.can_run(env):
        return _forked(server, args, env, str(folder))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *args],
        check=False,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Run(done.returncode, done.stdout + done.stderr)


def _forked(server: Forking, args: tuple[str, ...], env: dict[str, str], folder: str) -> Run:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        forked = server.run(args, env, folder, out, errors)
        try:
            code = forked.wait(120)
        except subprocess.TimeoutExpired:
            forked.kill()
            forked.wait()
            raise
        out.seek(0)
        errors.seek(0)
        return Run(code, (out.read() + errors.read()).decode())


def shortened(message: str) -> str:
    """Write the paths of this machine's Python as a reader's own would be."""
    return message.replace(sysconfig.get_path("stdlib"), "/usr/lib/python3")


def without_chance(text: str) -> str:
    """Leave out what differs from run to run and between versions of Python."""
    for pattern, word in (
        (r"at least \d+\.\d s old", "at least N s old"),
        (r"(Task|Thread)-\d+", r"\1-N"),
        (r"\(/\S*?/(\w+\.py):\d+\)", r"(\1)"),
        (r"\.<locals>\.<listcomp>", ""),  # Until 3.11 a comprehension is a function.
    ):
        text = re.sub(pattern, word, text)
    return text


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return each marked block: what it is, of which program, and what it says."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(what, program, body) for _, what, program, body, _ in found]


def block(what: str, program: str) -> str:
    """Return what a block has to say."""
    if what == "code":
        return (TESTS / program).read_text(encoding="utf-8")
    return shortened(run(program).message)


def _written(block_of: Callable[[str, str], str], text: str) -> str:
    def again(found: re.Match[str]) -> str:
        head, what, program, old, end = found.groups()
        new = block_of(what, program)
        same = what == "message" and without_chance(new) == without_chance(old)
        return f"{head}{old if same else new}{end}"

    return _BLOCK.sub(again, text)


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(_written(block, each.read_text(encoding="utf-8")), encoding="utf-8")
