"""Runs a program under the page: its command, environment, signals and exit status."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from otel_leaks.cli import warden
from otel_leaks.errors import UnknownProgramError

__all__ = ["block_signals", "command_of", "environment", "launch"]

_INSIDE = Path(__file__).with_name("inside")
_IMPATIENT = 3
"""Number of Ctrl-C after which a program that does not end is killed."""

# The user's own settings would send its telemetry elsewhere, slowly, or not at all.
_DROPPED = ("OTEL_EXPORTER_", "OTEL_TRACES_SAMPLER", "OTEL_SDK_DISABLED", "OTEL_CONFIG_FILE")
_FIXED: Mapping[str, str] = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
}
# Shorter than a service's defaults, as a person is watching. The user's settings win.
_WATCHED: Mapping[str, str] = {
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "1",
    "OTEL_PYTHON_LEAKS_TASK_LIMIT": "1000",
    "OTEL_PYTHON_LEAKS_OUTLIVED_S": "10",
    "OTEL_PYTHON_LEAKS_ORIGINS": "all",
}


def command_of(words: Sequence[str], *, module: bool) -> tuple[list[str], str]:
    """
    Return the command of a program, and its name.

    Args:
        words: A script, a module or a command of this environment, with its arguments; >= 1 word.
        module: Whether it is a module.

    Raises:
        UnknownProgramError: There is no such script and no such command.
    """
    first, *arguments = words
    if module:
        return [sys.executable, "-m", first, *arguments], first
    path = Path(first)
    if path.suffix in {".py", ".pyw", ".pyz"} or path.is_dir():
        if not path.exists():
            raise UnknownProgramError(f"there is no file {first}")
        return [sys.executable, first, *arguments], path.stem or path.resolve().name
    # A command of this environment first, even if it is not activated in the shell.
    beside = str(Path(sys.executable).parent)
    found = shutil.which(first, path=beside) or shutil.which(first)
    if found is None:
        raise UnknownProgramError(
            f"there is no file and no command {first}; name a script, -m MODULE, or a command"
        )
    return [found, *arguments], path.stem


def environment(
    environ: Mapping[str, str],
    endpoint: str,
    *,
    name: str,
    limit: int | None = None,
    origins: str | None = None,
) -> dict[str, str]:
    """Return the environment in which a program is instrumented without changes to it."""
    kept = {key: value for key, value in environ.items() if not key.startswith(_DROPPED)}
    paths = [str(_INSIDE), *filter(None, [kept.get("PYTHONPATH", "")])]
    hosts = [*filter(None, [kept.get("NO_PROXY") or kept.get("no_proxy", "")]), "127.0.0.1"]
    given: dict[str, str] = {}
    if limit is not None:
        given["OTEL_PYTHON_LEAKS_TASK_LIMIT"] = given["OTEL_PYTHON_LEAKS_THREAD_LIMIT"] = str(limit)
    if origins is not None:
        given["OTEL_PYTHON_LEAKS_ORIGINS"] = origins
    return {
        **_WATCHED,
        "OTEL_SERVICE_NAME": name,
        **kept,
        **given,
        **_FIXED,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "PYTHONPATH": os.pathsep.join(paths),
        "NO_PROXY": ",".join(hosts),
        "no_proxy": ",".join(hosts),
    }


def block_signals() -> None:
    """Reserve signals for ``launch``; call it before any thread is started."""
    if sys.platform != "win32":
        signal.signal(signal.SIGCHLD, lambda *_: None)  # An ignored signal can't be waited for.
        signal.pthread_sigmask(signal.SIG_BLOCK, {*warden.SIGNALS, signal.SIGCHLD})


def launch(command: Sequence[str], environ: Mapping[str, str], *, seconds: float | None) -> int:
    """
    Run a program until it ends.

    Args:
        command: The program with its arguments.
        environ: Its environment.
        seconds: Time after which it is asked to end, None for never.

    Returns:
        Its exit status; 128 plus the number of the signal if a signal ended it.
    """
    if sys.platform == "win32":
        return _launch_on_windows(command, environ, seconds)
    lifeline, hold = os.pipe()
    arguments = [sys.executable, "-I", "-S", warden.__file__, str(lifeline), *command]
    process = subprocess.Popen(arguments, env=environ, pass_fds=(lifeline,))  # noqa: S603
    os.close(lifeline)
    timer = threading.Timer(seconds or 0, _pass_on, (hold, signal.SIGTERM))
    timer.daemon = True
    if seconds is not None:
        timer.start()
    interrupts = 0
    try:
        while process.poll() is None:
            number, is_terminal = _next_signal()
            interrupts += number == signal.SIGINT
            if interrupts >= _IMPATIENT:
                _pass_on(hold, warden.END_ALL)
            elif number != signal.SIGCHLD and not is_terminal:
                _pass_on(hold, number)
        return process.returncode
    finally:
        timer.cancel()
        os.close(hold)


def _next_signal() -> tuple[int, bool]:
    """Wait for a signal; return it, and whether the whole process group received it."""
    wanted = {*warden.SIGNALS, signal.SIGCHLD}
    if hasattr(signal, "sigwaitinfo"):
        said = signal.sigwaitinfo(wanted)
        # SI_KERNEL means the terminal, 0 or less a process that called kill(2).
        return said.si_signo, said.si_code > 0 and said.si_signo != signal.SIGCHLD
    number = signal.sigwait(wanted)  # macOS reports only the number.
    return number, number in {signal.SIGINT, signal.SIGQUIT} and sys.stdin.isatty()


def _pass_on(hold: int, number: int) -> None:
    try:
        os.write(hold, bytes([number]))
    except OSError:
        return  # The program has just ended.


def _launch_on_windows(
    command: Sequence[str], environ: Mapping[str, str], seconds: float | None
) -> int:
    with subprocess.Popen(command, env=environ) as process:  # noqa: S603
        try:
            return process.wait(seconds)
        except (KeyboardInterrupt, subprocess.TimeoutExpired) as reason:
            # Ctrl-C reaches the program from the console.
            if isinstance(reason, subprocess.TimeoutExpired):
                process.terminate()
            return process.wait()
