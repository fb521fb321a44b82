"""Real servers, run as their users run them, with otel-leaks and without it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil  # type: ignore[import-untyped]

from e2e.receiving import eventually
from reliability.environment import ServersEnvironment
from reliability.telemetry import Telemetry

__all__ = ["APPS", "How", "Run", "Running", "unexpected"]

How = Literal["zero-code", "in code"]
APPS = Path(__file__).with_name("apps")

STOP_S = 20.0
"""After which a server that was asked to end is killed, and has failed."""
LATER_S = 5.0
"""How much later than without otel-leaks an end may be: a load of eight, and no hang."""
LIMIT = 15
"""thread_limit and task_limit: planted leaks are larger."""


@dataclass(frozen=True)
class Run:
    """How programs of one test are run: all that is the same for each."""

    environment: ServersEnvironment
    telemetry: Telemetry
    folder: Path
    how: How
    watched: bool
    """False: the same program, SDK and environment, only otel-leaks is off."""
    apps: Path = APPS
    """The folder that they run in."""

    @property
    def our_log(self) -> Path:
        return self.folder / "otel-leaks.log"

    def variables(self) -> dict[str, str]:
        found = {
            **self.environment.variables,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.telemetry.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_SERVICE_NAME": "reliability",
            "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.2",
            "OTEL_PYTHON_LEAKS_THREAD_LIMIT": str(LIMIT),
            "OTEL_PYTHON_LEAKS_TASK_LIMIT": str(LIMIT),
            "INSTRUMENT": self.how,
            "WATCHED": str(int(self.watched)),
            "OUR_LOG": str(self.our_log),
            "PYTHONUNBUFFERED": "1",
            "PYTHONHASHSEED": "0",  # gevent's warnings list sets.
            "HOME": str(self.folder.parent),  # Some keep sockets and settings there.
        }
        if self.how == "zero-code" and not self.watched:
            found["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "leaks"
        return found

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return the command line of a program of the environment."""
        start = (
            self.environment.zero_code(program)
            if self.how == "zero-code"
            else [self.environment.program(program)]
        )
        return [*start, *arguments]

    @contextlib.contextmanager
    def running(
        self,
        command: Sequence[str],
        *,
        port: int = 0,
        variables: Mapping[str, str] | None = None,
        kind: type[Running] | None = None,
    ) -> Iterator[Running]:
        """Run a program, and end it and all that it started, however the test ends."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "COV_"))}
        inherited.pop("CI", None)  # Some programs print less or more where it is set.
        stdout, stderr = self.folder / "stdout.log", self.folder / "stderr.log"
        with stdout.open("ab") as out, stderr.open("ab") as err:
            process = subprocess.Popen(
                command,
                cwd=self.apps,
                env={**inherited, **self.variables(), **(variables or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        program = (kind or Running)(process, port, stdout, stderr)
        try:
            yield program
        finally:
            program.kill()


@dataclass
class Running:
    """A program that runs, in a session of its own."""

    process: subprocess.Popen[bytes]
    port: int
    _stdout: Path
    _stderr: Path
    status: int | None = None
    """How it ended, once it has."""
    took_s: float = 0.0
    """How long it took to end after it was asked to."""
    _seen: dict[int, psutil.Process] = field(default_factory=dict)
    _others: int = 0

    @property
    def stderr(self) -> str:
        return self._stderr.read_text("utf-8", "replace")

    @property
    def stdout(self) -> str:
        return self._stdout.read_text("utf-8", "replace")

    def get(self, path: str = "/") -> tuple[int, dict[str, Any]]:
        """Ask over a new connection, so that each worker gets its turn; 0 for no answer."""
        assert self.process.poll() is None, f"it has ended:\n{self.stdout}\n{self.stderr}"
        try:
            url = f"http://127.0.0.1:{self.port}{path}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, {}
        except (OSError, ValueError):
            return 0, {}

    def get_beside(self, path: str) -> list[tuple[int, dict[str, Any]]]:
        """
        Ask, and where there are several workers ask for the state beside it; *path* is first.

        One request at a time may always reach the same worker: whichever wakes first.
        """
        with ThreadPoolExecutor(1 + self._others) as pool:
            return list(pool.map(self.get, [path, *["/"] * self._others]))

    def workers(self, n: int, *, but: frozenset[int] = frozenset()) -> dict[int, dict[str, Any]]:
        """Wait until *n* workers have answered, none of them one of *but*; return their states."""
        found: dict[int, dict[str, Any]] = {}

        self._others = 3 if n > 1 else 0

        def ask() -> dict[int, dict[str, Any]]:
            for status, answer in self.get_beside("/"):
                if status == 200 and answer["pid"] not in but:
                    found[answer["pid"]] = answer
            return found

        eventually(ask, lambda found: len(found) >= n)
        self.note_processes()
        return found

    def leak(self, pid: int, n: int) -> None:
        """Leak in one worker: the others refuse, and it is asked again."""
        eventually(
            lambda: self.get_beside(f"/leak?pid={pid}&n={n}")[0][0],
            lambda status: status == 200,
        )

    def state_of(self, pid: int) -> dict[str, Any]:
        """Ask until one given worker has answered."""
        return eventually(lambda: self.get()[1], lambda state: state.get("pid") == pid)

    def note_processes(self) -> None:
        """Note all that run now, to see later that they are gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.process.pid)
            for each in (own, *own.children(recursive=True)):
                self._seen[each.pid] = each

    def processes(self) -> list[int]:
        """Return those of the noted processes that still run."""
        return [
            pid
            for pid, each in self._seen.items()
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE
        ]

    def wait(self, within_s: float = 120.0) -> None:
        """Wait until it ends by itself; its last line of stdout says when it began to."""
        self.status = self.process.wait(within_s)
        self.took_s = time.monotonic() - float(self.stdout.split()[-1])

    def stop(self, by: signal.Signals = signal.SIGTERM, *, group: bool = False) -> None:
        """Ask it to end, and wait until it and all that it started are gone."""
        self.note_processes()
        started = time.monotonic()
        if group:
            os.killpg(self.process.pid, by)
        else:
            self.process.send_signal(by)
        try:
            self.status = self.process.wait(STOP_S)
            eventually(self.processes, lambda left: not left, within_s=STOP_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"it did not end within {STOP_S} s after {by.name}:\n{self.stdout}\n{self.stderr}"
            ) from None
        self.took_s = time.monotonic() - started

    def kill(self) -> None:
        self.note_processes()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # The session that we started.
        for each in self._seen.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                if each.is_running():
                    each.kill()
        self.process.wait()


_CHANGES = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,\d]*(Z| ?[+-]\d{4})?"), "TIME"),
    (re.compile(r"\d\d?/\w{3}/\d{4}[: ]\d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"\w+ \d\d?, \d{4} - \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}"), "UUID"),
    (re.compile(r"0x[0-9a-f]+"), "0x"),
    (re.compile(r"\d+(\.\d+)?"), "N"),
)


def normal(line: str) -> str:
    """Return a line without what differs from run to run."""
    for pattern, instead in _CHANGES:
        line = pattern.sub(instead, line)
    return line.strip()


def unexpected(watched: str, without: str) -> list[str]:
    """Return what was printed with otel-leaks and not without it."""
    usual = {normal(line) for line in _lines(without)}
    return [line for line in _lines(watched) if normal(line) not in usual]


def _lines(text: str) -> list[str]:
    # Several processes write at once: a log line may begin in the middle of another's.
    text = re.sub(r"(?=\[\d{4}-\d\d-\d\d )", "\n", text)
    # Python underlines in each line of a traceback.
    return [each for each in text.splitlines() if each.strip(" ~^")]
