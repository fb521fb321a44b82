"""
The parent of a program under ``otel-leaks run``, which sees to it that nothing is left behind.

A process of its own, so that it is still there when the server is killed: it holds the reading
end of a pipe whose other end the server has. A byte on it is a signal for the program; its end
means that the server is gone, and then the program has to go too. It runs by its path, without
``site``, and imports nothing but the standard library.

Server, warden and program are one process group, so that the program is the shell's foreground
job: it reads the terminal, and Ctrl-C and Ctrl-Z reach it from there.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["END_ALL", "SIGNALS"]

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
"""What the server hands on."""
END_ALL = 255
"""A byte that is no signal: everything has to end at once."""
GRACE_S = 5.0
"""For a program that was asked to end, before it is killed."""
LEFT_GRACE_S = 2.0
"""The same for processes that the program left behind."""
_CHILD_SUBREAPER = 36
"""``PR_SET_CHILD_SUBREAPER`` of Linux's prctl.h."""


def main(lifeline: int, command: list[str]) -> int:
    """
    Run a program to its end.

    Args:
        lifeline: The pipe's reading end.
        command: The program with its arguments.

    Returns:
        Its exit status; 128 and the number of the signal that ended it, as shells have it.
    """
    _adopt_orphans()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (*SIGNALS, signal.SIGCHLD):
        # The program has got those of the terminal already. Not ignored: it would inherit that.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _nothing)
    # The server blocks them, and what it starts inherits that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*SIGNALS, signal.SIGCHLD))
    try:
        program = subprocess.Popen(command)  # noqa: S603 - what the user asked for
    except OSError as error:
        print(f"otel-leaks run: {error}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    try:
        return _status(_watch(program.pid, lifeline, woken))
    finally:
        _end_left(LEFT_GRACE_S)
        _reaped(0)


def _watch(pid: int, lifeline: int, woken: int) -> int:
    """Hand signals on until the program ends; return its status as ``waitpid`` has it."""
    sources = [lifeline, woken]
    kill_at: float | None = None
    while (ended := _reaped(pid)) is None:
        wait_s = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select(sources, [], [], wait_s)
        if kill_at is not None and time.monotonic() >= kill_at:
            kill_at += 1.0
            _end_left(0.0)
        if woken in ready and signal.SIGTERM in os.read(woken, 4096):
            _send(pid, signal.SIGTERM)  # Whoever sent it to this process means the program.
        if lifeline in ready and not _handed_on(pid, os.read(lifeline, 4096)):
            sources.remove(lifeline)
            kill_at = time.monotonic() + GRACE_S
    return ended


def _handed_on(pid: int, said: bytes) -> bool:
    """Do what the server said; return false when it is gone, and all were asked to end."""
    for number in said:
        if number == END_ALL:
            _end_left(0.0)
        else:
            _send(pid, number)
    if not said:
        for each in list(_descendants(os.getpid())):
            _send(each, signal.SIGTERM)
    return bool(said)


def _reaped(pid: int) -> int | None:
    """Take the ends of all that ended; return the program's."""
    found = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if ended == 0:
            return found
        if ended == pid:
            found = status


def _end_left(grace_s: float) -> None:
    """End all that descends from here."""
    until = time.monotonic() + grace_s
    for each in _descendants(os.getpid()):
        _send(each, signal.SIGTERM if grace_s else signal.SIGKILL)
    while grace_s and time.monotonic() < until:
        _reaped(0)
        if not list(_descendants(os.getpid())):
            return
        time.sleep(0.02)
    # Again and again: who is killed may just have started another.
    for _ in range(100):
        left = list(_descendants(os.getpid()))
        if not left:
            return
        for each in left:
            _send(each, signal.SIGKILL)
        time.sleep(0.02)
        if grace_s:
            _reaped(0)


def _descendants(pid: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = [pid]
    while found:
        below = children.get(found.pop(), [])
        yield from below
        found.extend(below)


def _parents() -> Iterator[tuple[int, int]]:
    """Yield the pid of each living process and of its parent."""
    if Path("/proc/self/stat").exists():
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                # "12 (a name) S 1 ...": the name may hold anything.
                state, parent = path.read_bytes().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue  # It has ended meanwhile.
            if state not in {b"Z", b"X"}:
                yield int(path.parent.name), int(parent)
        return
    listed = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    with subprocess.Popen(listed, stdout=subprocess.PIPE, text=True) as ps:  # noqa: S603
        assert ps.stdout is not None
        for line in ps.stdout:
            pid, parent_pid, stat = line.split(maxsplit=2)
            if int(pid) != ps.pid and not stat.startswith("Z"):
                yield int(pid), int(parent_pid)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _adopt_orphans() -> None:
    """Become the parent of what loses its own below here, on Linux, so that it is found."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        prctl: Callable[..., int] = ctypes.CDLL(None).prctl
        prctl(_CHILD_SUBREAPER, 1, 0, 0, 0)


def _status(ended: int) -> int:
    code = os.waitstatus_to_exitcode(ended)
    return code if code >= 0 else 128 - code


def _nothing(*_: object) -> None:
    """Do nothing; that it came is read from the pipe."""


if __name__ == "__main__":
    status = main(int(sys.argv[1]), sys.argv[2:])
    sys.stderr.flush()
    # Pipes and the program's object are the process's: nothing is worth waiting for.
    os._exit(status)
