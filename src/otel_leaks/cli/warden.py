"""
The parent process of a program under ``otel-leaks run``, which ensures that nothing is left behind.

It is a process of its own, so that it survives if the server is killed. It holds the reading end
of a pipe whose other end the server has. A byte on the pipe is a signal for the program; its end
means that the server is gone, and the program must then end as well. The warden is started by
its path, without ``site``, and imports only the standard library.

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
"""The signals that the server passes on."""
END_ALL = 255
"""A byte that is not a signal: everything must end at once."""
GRACE_S = 5.0
"""Time that a program has to end before it is killed, seconds."""
LEFT_GRACE_S = 2.0
"""The same for processes that the program left behind, seconds."""
_CHILD_SUBREAPER = 36
"""``PR_SET_CHILD_SUBREAPER`` of Linux's prctl.h."""


def main(lifeline: int, command: list[str]) -> int:
    """
    Run a program to its end.

    Args:
        lifeline: The reading end of the pipe.
        command: The program with its arguments.

    Returns:
        Its exit status; as in shells, 128 plus the number of the signal if a signal ended it.
    """
    _adopt_orphans()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (*SIGNALS, signal.SIGCHLD):
        # The program itself receives those of the terminal. Not SIG_IGN, which it would inherit.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _nothing)
    # The server blocks them, and its child processes inherit that.
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
    """Pass signals on until the program ends; return its status as ``waitpid`` returns it."""
    sources = [lifeline, woken]
    kill_at: float | None = None
    while (ended := _reaped(pid)) is None:
        wait_s = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select(sources, [], [], wait_s)
        if kill_at is not None and time.monotonic() >= kill_at:
            kill_at += 1.0
            _end_left(0.0)
        if woken in ready and signal.SIGTERM in os.read(woken, 4096):
            _send(pid, signal.SIGTERM)  # Sent to this process, but meant for the program.
        if lifeline in ready and not _handed_on(pid, os.read(lifeline, 4096)):
            sources.remove(lifeline)
            kill_at = time.monotonic() + GRACE_S
    return ended


def _handed_on(pid: int, said: bytes) -> bool:
    """Do what the server requested; if it is gone, ask all to end, and return False."""
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
    """Reap all children that have ended; return the program's status if it is among them."""
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
    """End all descendants of this process."""
    until = time.monotonic() + grace_s
    for each in _descendants(os.getpid()):
        _send(each, signal.SIGTERM if grace_s else signal.SIGKILL)
    while grace_s and time.monotonic() < until:
        _reaped(0)
        if not list(_descendants(os.getpid())):
            return
        time.sleep(0.02)
    # Repeatedly: a process may have started another just before it is killed.
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
    """Do nothing; the signal is read from the pipe."""


if __name__ == "__main__":
    status = main(int(sys.argv[1]), sys.argv[2:])
    sys.stderr.flush()
    # The operating system closes the pipes: there is no need to wait for anything.
    os._exit(status)
