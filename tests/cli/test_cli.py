from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]
import pytest

import otel_leaks
from otel_leaks.cli import main
from otel_leaks.shipped import DESCRIPTIONS

# Under a shell's "&" SIGINT is ignored, and whoever is started inherits that.
PROGRAM = """
import signal, sys
from otel_leaks.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""
OTEL_LEAKS = [sys.executable, "-W", "error", "-c", PROGRAM]
TITLE = "otel-leaks demo: a web shop that leaves a task behind with every order\n"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


def failing(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """Return the exit status, the output and the last line of the errors of a wrong call."""
    with pytest.raises(SystemExit) as exited:
        main(argv)
    said = capsys.readouterr()
    return exited.value.code, said.out, said.err.splitlines()[-1]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", ""])
def test_seconds_are_more_than_none(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(["demo", f"--seconds={seconds}"], capsys) == (
        2,
        "",
        "otel-leaks demo: error: argument --seconds: must be a number of seconds > 0, "
        f"got {seconds!r}; leave it out for 30",
    )


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing([], capsys) == (
        2,
        "",
        "otel-leaks: error: the following arguments are required: COMMAND",
    )


def test_an_unknown_command_is_reported_with_those_that_are_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, error = failing(["dmo"], capsys)
    assert (status, out) == (2, "")
    assert re.fullmatch(
        r"otel-leaks: error: argument COMMAND: invalid choice: 'dmo'.*demo.*", error
    )


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"otel-leaks {otel_leaks.__version__}\n"


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["demo"]) == 2
    assert capsys.readouterr() == (
        "",
        "otel-leaks demo needs rich, starlette, uvicorn: pip install 'otel-leaks[view]'\n",
    )


def test_importing_the_command_loads_neither_opentelemetry_nor_a_server() -> None:
    heavy = ("opentelemetry", "google", "uvicorn", "starlette", "asyncio")
    program = (
        "import sys, otel_leaks.cli;"
        f"print([name for name in sys.modules if name.partition('.')[0] in {heavy!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_examples_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples"]) == 0
    said = capsys.readouterr()
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in said.out.splitlines())
    assert (lines, said.err) == (DESCRIPTIONS, "")


def test_an_example_is_printed_byte_for_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["examples", "prometheus/rules.yaml"]) == 0
    assert capfdbinary.readouterr().out == (EXAMPLES / "prometheus/rules.yaml").read_bytes()


def test_examples_need_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["examples"]) == 0


@pytest.mark.parametrize("name", ["rules.yaml", "prom", "", "../pyproject.toml"])
def test_an_unknown_example_is_reported_with_those_that_are_known(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["examples", name]) == 2
    assert capsys.readouterr() == (
        "",
        f"otel-leaks examples: there is no example {name!r}; there are {', '.join(DESCRIPTIONS)}\n",
    )


def test_a_folder_of_examples_is_written_and_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [name for name in DESCRIPTIONS if name.startswith("prometheus/")]
    assert main(["examples", "prometheus"]) == 2
    assert capsys.readouterr() == (
        "",
        f"otel-leaks examples: 'prometheus' is a folder of {', '.join(files)}; name one of them, "
        "or write them with --to DIR\n",
    )
    assert main(["examples", "prometheus", "--to", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == "".join(
        f"wrote {tmp_path / 'new' / name}\n" for name in files
    )


def test_an_example_that_was_changed_is_overwritten_only_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["examples", "prometheus/rules.yaml", "--to", str(tmp_path)]
    rules = tmp_path / "prometheus" / "rules.yaml"
    assert main(call) == 0
    rules.write_text("mine")
    capsys.readouterr()

    assert main(call) == 2
    assert rules.read_text() == "mine"
    assert capsys.readouterr() == (
        "",
        f"otel-leaks examples: {rules} would be overwritten, and differs from what is shipped, "
        "so nothing was written; add --force to overwrite, or choose another folder\n",
    )
    assert main([*call, "--force"]) == 0
    assert rules.read_bytes() == (EXAMPLES / "prometheus/rules.yaml").read_bytes()
    assert main(call) == 0
    assert capsys.readouterr().out == (
        f"wrote {rules}\n1 of 1 were there already, and are the same\n"
    )


def test_a_folder_that_is_none_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["examples", "collector.yaml", "--to", str(file)]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert str(file) in error
    assert error.endswith("; choose another folder with --to DIR\n")


def test_force_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples", "--force"]) == 2
    assert capsys.readouterr() == (
        "",
        "otel-leaks examples: --force needs --to DIR, the folder to write below\n",
    )


class Demo:
    """A run of the demo in a process, that has begun to tell of counts."""

    def __init__(self, process: subprocess.Popen[str], out: IO[str]) -> None:
        self.process = process
        self.out = out
        self.said = [out.readline() for _ in range(3)]
        self.children = psutil.Process(process.pid).children(recursive=True)

    def end(self) -> tuple[int, str, str]:
        """Return its exit status, its output without the counts, and its errors."""
        assert self.process.stderr is not None
        out = "".join([*self.said, *self.out])
        error = self.process.stderr.read()
        status = self.process.wait(60)
        return status, re.sub(r"^ +\d+ s   .*\n", "", out, flags=re.MULTILINE), error

    def left(self) -> list[psutil.Process]:
        """Return which of its processes are still there; the last ones get some seconds."""
        _, alive = psutil.wait_procs(self.children, timeout=20)
        return list(alive)


@contextmanager
def demo(*arguments: str) -> Iterator[Demo]:
    with subprocess.Popen(
        [*OTEL_LEAKS, "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OTEL_SDK_DISABLED": "true"},
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        try:
            running = Demo(process, process.stdout)
            assert len(running.children) == 1, "".join(running.said)
            yield running
        finally:
            process.kill()


def test_the_demo_catches_its_leak_and_leaves_nothing_behind() -> None:
    # A limit that is reached after some censuses, however far apart a busy machine has them.
    with demo("--seconds", "100", "--limit", "100") as running:
        status, out, error = running.end()
        assert (status, error, running.left()) == (0, "", [])
    shop = str(Path(otel_leaks.__file__).parent / "demo" / "shop.py")
    out = re.sub(r"\S*queues\.py", "QUEUES", out.replace(shop, "SHOP"))
    assert re.sub(r"\b\d+\b", "N", out) == (
        TITLE
        + """

LEAK DETECTED
N asyncio tasks pending, more than the limit of N; most of them: \
N in otel_leaks.demo.shop.keep_customer_posted (SHOP:N), the oldest for at least N s

  what         N asyncio tasks, of N pending in all
  function     otel_leaks.demo.shop.keep_customer_posted
  oldest       pending for at least N s
  awaited by   nothing
  waits at     keep_customer_posted  SHOP:N
               └ next_update         SHOP:N
                 └ get               QUEUES:N
  hint         a background worker without an exit: it waits on a queue that nobody fills; cancel \
the task and await it when its owner ends, or put a sentinel that ends its loop
  fingerprint  a2be62b9c7d1, the same on every host

Caught after N s, though all N orders were answered with N.
The bug: each order starts a task that waits for updates, and nobody ever
tells it that the order is done. To find yours, put this into your service:

    from otel_leaks import LeakInstrumentor, configure

    configure("http://localhost:N")  # your OpenTelemetry collector
    LeakInstrumentor().instrument()
"""
    )


def test_a_leak_below_its_limit_is_not_caught() -> None:
    with demo("--seconds", "5", "--limit", "9999") as running:
        status, out, error = running.end()
        assert (status, error, running.left()) == (1, "", [])
    assert re.sub(r": \d+ asyncio", ": N asyncio", out) == (
        TITLE
        + "\n\n"
        + "Not caught within 5 s: N asyncio tasks are pending, the limit is 9999.\n"
        + "Give it more time: otel-leaks demo --seconds 10\n"
    )


def test_a_shop_that_does_not_start_is_told_with_its_log() -> None:
    done = subprocess.run(
        [*OTEL_LEAKS, "demo", "--limit", "0"],
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "The shop did not start. Its log ends with:",
        "",
        "    Traceback (most recent call last):",
    ]
    assert lines[-1].startswith(
        "    otel_leaks.errors.InvalidValueError: task_limit must be a whole number >= 1"
    )


def test_a_shop_that_ends_too_early_is_reported() -> None:
    with demo("--limit", "9999") as running:
        running.children[0].kill()
        status, out, error = running.end()
    assert (status, out, error) == (
        1,
        TITLE + "\nThe shop ended too early, and logged nothing.\n",
        "",
    )


@POSIX
def test_ctrl_c_ends_it_without_a_traceback() -> None:
    with demo() as running:
        running.process.send_signal(signal.SIGINT)
        assert running.end() == (130, TITLE + "\n", "\nStopped.\n")
        assert running.left() == []


def test_a_reader_that_leaves_ends_it() -> None:
    with demo() as running:
        running.out.close()
        assert running.process.wait(60) == 1
        assert running.process.stderr is not None
        assert running.process.stderr.read() == ""
        assert running.left() == []


def test_the_shop_does_not_outlive_a_demo_that_was_killed() -> None:
    with demo() as running:
        running.process.kill()
        assert running.left() == []
