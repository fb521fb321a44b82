"""Programs under test: started with environment variables alone, and always ended."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

__all__ = ["Program", "Serve", "Service", "free_ports", "instrumented"]

STOP_S = 60.0


class Program:
    """
    A program that runs from now until ``stop``.

    Args:
        command: With its arguments.
        variables: Added to this process's environment, without its own OTEL_ ones.
        log: Takes what it writes, to stdout and stderr.
        cwd: The folder that it runs in; None for this process's.
    """

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "COV_"))}
        self.command = list(command)
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                self.command,
                cwd=cwd,
                env={**inherited, **variables},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # So that its workers can be ended with it.
            )

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def alive(self) -> bool:
        """Say that it runs; fail, with its log, when it has ended."""
        status = self.process.poll()
        assert status is None, f"{self.command[0]} ended with {status}:\n{self.log}"
        return True

    def wait(self, within_s: float) -> int:
        return self.process.wait(within_s)

    def stop(self, within_s: float = STOP_S) -> float:
        """Ask it to end, and return after how many seconds it did; kill it after *within_s*."""
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            if sys.platform == "win32":
                self.process.kill()
            else:
                os.killpg(self.process.pid, signal.SIGKILL)  # The session that we started.
            self.process.wait()
        return time.monotonic() - started


class Service:
    """The leaky service, up and answering."""

    def __init__(self, program: Program, client: httpx.Client) -> None:
        self.program = program
        self.client = client

    @property
    def log(self) -> str:
        return self.program.log

    def post(self, path: str, **params: int) -> httpx.Response:
        return self.client.post(path, params=params)

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def answers(self) -> bool:
        self.program.alive()
        try:
            return self.get("/pid").status_code == 200
        except httpx.TransportError:
            return False


Serve = Callable[..., Service]


def instrumented(*command: str) -> list[str]:
    """Return the command line that runs a Python program with zero-code instrumentation."""
    scripts = Path(sysconfig.get_path("scripts"))
    return [str(scripts / "opentelemetry-instrument"), str(scripts / command[0]), *command[1:]]


MOST_WORKERS = 10


def free_ports(n: int) -> list[int]:
    """
    Return ports of 127.0.0.1 that nobody listens on now, all different.

    They are below those that systems give to outgoing connections, one of which would
    else take a port before its server does. Each worker of pytest-xdist has its own.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    ports = range(20_000 + int(worker) % MOST_WORKERS, 32_000, MOST_WORKERS)
    found: list[int] = []
    for port in random.sample(ports, 1000):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
        if len(found) == n:
            return found
    raise OSError("no free port from 20000 to 32000")
