"""The process of the shop: starts it, reads its output, and always stops it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Ended", "Ready", "Service", "environment"]

TAIL_LINES = 30
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The service accepts requests."""

    port: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The service has ended."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the environment of the service's process, made from *environ*.

    The user's own OpenTelemetry settings would send its telemetry elsewhere, slowly, or not at
    all; a proxy does not reach 127.0.0.1 of this machine.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith("OTEL_")}
    return {
        **kept,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        # Modules in the current folder do not belong to the service (3.11 and later).
        "PYTHONSAFEPATH": "1",
    }


class Service:
    """
    Runs the shop in a process of its own; a context manager.

    Args:
        endpoint: Where the shop sends its telemetry.
        task_limit: Limit of pending tasks of its instrumentation.
        notify: Called with ``Ready`` and ``Ended``, from a thread.
        is_busy: Whether to run the shop of the live page.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        task_limit: int,
        notify: Callable[[Ready | Ended], object],
        is_busy: bool = False,
    ) -> None:
        self._command = [sys.executable, "-m", "otel_leaks.demo", endpoint, str(task_limit)]
        if is_busy:
            self._command.append("busy")
        self._notify = notify
        self._listener = threading.Thread(
            target=self._listen, name="otel-leaks-demo-service", daemon=True
        )

    def __enter__(self) -> Self:
        # A file without a name, which can't be left behind.
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment(os.environ),
            # Ctrl-C goes to this process only, which then stops the service.
            start_new_session=True,
        )
        self._listener.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process = self._process
        assert process.stdin is not None
        try:
            process.stdin.close()
            process.wait(_STOP_S)
        except (OSError, subprocess.TimeoutExpired):
            pass
        finally:
            # Even after a second Ctrl-C.
            process.kill()
            process.wait()
            self._listener.join()
            self._log.close()

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines of the service's log."""
        self._log.seek(0)
        text = self._log.read().decode("utf-8", "replace")
        return tuple(text.splitlines()[-TAIL_LINES:])

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                word, _, port = line.strip().partition(b" ")
                if word == b"port":
                    self._notify(Ready(int(port)))
        self._notify(Ended())
