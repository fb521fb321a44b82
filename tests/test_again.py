"""What failed runs once more, alone: that is named, and hides neither a defect nor a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import again

FLAKY = """
    import pathlib
    import pytest

    @pytest.mark.parametrize("number", range({count}))
    def test_at_first(number):
        been = pathlib.Path(f"been-{{number}}")
        if not been.exists():
            been.touch()
            {fail}

    def test_always():
        pathlib.Path("ran").open("a").write(".")
"""


def tried(
    pytester: pytest.Pytester, source: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    pytester.makepyfile(source)
    return subprocess.run(
        [sys.executable, again.__file__, "build/report.xml", "-pxdist.plugin", *arguments],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def failing(count: int, fail: str = "assert False") -> str:
    return FLAKY.format(count=count, fail=fail)


def test_what_passes_when_it_runs_again_passes_and_is_named(pytester: pytest.Pytester) -> None:
    done = tried(pytester, failing(2), "-n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    module = Path(*pytester.path.glob("test_*.py")).stem
    names = [f"{module}.test_at_first[0]", f"{module}.test_at_first[1]"]
    last = done.stdout.splitlines()[-3:]
    assert last[0] == "passed only at the second run, alone; to be mended:"
    assert sorted(each.strip() for each in last[1:]) == names
    assert sorted(again.flaky(pytester.path / "build/report.xml")) == names
    assert (pytester.path / "ran").read_text("utf-8") == "."


def test_what_fails_again_fails(pytester: pytest.Pytester) -> None:
    done = tried(pytester, "def test_it(): assert False")
    assert (done.returncode, again.flaky(pytester.path / "build/report.xml")) == (1, [])
    assert "1 failed" in done.stdout.splitlines()[-1]


def test_a_clean_run_is_run_once(pytester: pytest.Pytester) -> None:
    done = tried(pytester, failing(0))
    assert (done.returncode, "once more" in done.stdout) == (0, False)


@pytest.mark.parametrize(
    ("source", "status"),
    [
        (failing(again.MOST + 1), 1),
        (failing(1, "import os; os._exit(3)"), 1),
        (failing(1, "raise KeyboardInterrupt"), 2),
        ("assert False", 2),
    ],
    ids=["many", "crash", "interrupt", "collection"],
)
def test_what_is_no_accident_does_not_run_again(
    pytester: pytest.Pytester, source: str, status: int
) -> None:
    done = tried(pytester, source, *(("-n", "1") if "os._exit" in source else ()))
    assert (done.returncode, "once more" in done.stdout) == (status, False), done.stdout
