"""
The listener of a process that opted in: ``attach=True``.

A thread waits in ``accept``, which costs nothing. It answers one command at a time, and only those
of the same user or of root: the socket has mode 0600 in a folder of mode 0700, and the system
reports who connected. Each process has its own listener; a forked child closes an inherited one.
"""

from __future__ import annotations

import contextlib
import os
import socket as _constants
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from otel_leaks.attach import endpoints
from otel_leaks.attach.guest import Maker, answer
from otel_leaks.runtime import forks, native

__all__ = ["SocketEndpoint"]

JOIN_S = 0.5
"""How long closing waits for the thread, seconds; a running census ends after a few slices."""


@final
class SocketEndpoint:
    """
    Listens from ``open`` to ``close``, in the process that called it.

    Args:
        make: Creates the object that takes the censuses of one visit.
        complain: Called once in each process that can't listen.
    """

    def __init__(self, make: Maker, complain: Callable[[Exception], None]) -> None:
        self._make = make
        self._complain = complain
        self._pid: int | None = None
        self._path: Path | None = None
        self._listener: Any = None
        self._visitor: Any = None
        self._thread: native.Thread | None = None
        # Held while opening and closing: by the monitor, the application, or at its exit.
        self._lock = forks.Lock()
        self._is_shut = False

    def open(self) -> None:
        """Listen, unless this process already does; call it regularly, as after a fork."""
        if self._pid == os.getpid() or not hasattr(_constants, "AF_UNIX"):
            return
        with self._lock:
            if self._is_shut:
                return
            self.forked()
            self._pid = os.getpid()  # Even if it fails: do not try again.
            try:
                self._listen_in(endpoints.made_folder(os.geteuid()))
            except Exception as error:  # Such as another user's folder; the rest goes on.
                self._complain(error)

    def _listen_in(self, folder: Path) -> None:
        _remove_stale(folder)
        path = folder / str(self._pid)
        # It gets its name when it listens: a command that finds it before would be refused.
        unnamed = folder / f".{self._pid}"
        unnamed.unlink(missing_ok=True)
        listener = _socket()
        try:
            listener.bind(os.fspath(unnamed))
            unnamed.chmod(0o600)
            listener.listen(4)
            unnamed.replace(path)
            self._path, self._listener = path, listener
            self._thread = native.Thread(self._listen, "otel-leaks-attach")
            self._thread.start()
        except BaseException:
            self._listener = self._path = self._thread = None
            listener.close()
            unnamed.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Stop listening permanently, end a visit in progress, and remove the socket."""
        with self._lock:
            self._is_shut = True
            if self._pid != os.getpid() or self._path is None:
                return
            listener, visitor, path = self._listener, self._visitor, self._path
            thread, self._thread, self._path = self._thread, None, None
        with contextlib.suppress(OSError):
            path.unlink()
        for each in (visitor, listener):
            if each is not None:
                # Wakes the thread that waits on it; on macOS a listener must be closed.
                with contextlib.suppress(OSError):
                    each.shutdown(_constants.SHUT_RDWR)
        if thread is not None and not thread.is_current():
            thread.join(JOIN_S)
        with contextlib.suppress(OSError):
            listener.close()

    def forked(self) -> None:
        """Close what a child inherited, so that the parent's visitors notice its end."""
        for each in (self._listener, self._visitor):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.close()
        self._listener = self._visitor = self._thread = self._path = self._pid = None

    def _listen(self) -> None:
        listener = self._listener
        while not self._is_shut and listener is self._listener:
            try:
                number, _ = listener._accept()
            except OSError:
                return
            visitor = self._visitor = _socket(number)
            try:
                # An error in a visit ends that visit, and nothing else.
                with contextlib.suppress(Exception):
                    if not self._is_shut and _is_allowed(visitor):
                        answer(visitor, self._make)
            finally:
                self._visitor = None
                visitor.close()


def _socket(number: int | None = None) -> Any:
    # Not the module socket, which gevent replaces. Private, and the base of the public class
    # on 3.10 to 3.15.
    import _socket as plain

    kinds = (_constants.AF_UNIX, _constants.SOCK_STREAM)
    made = plain.socket(*kinds) if number is None else plain.socket(*kinds, fileno=number)
    made.settimeout(None)
    return made


def _is_allowed(visitor: Any) -> bool:
    """Return whether a visitor is this user or root; True if unknown, as file modes protect."""
    option = getattr(_constants, "SO_PEERCRED", None)
    if option is None:
        return True
    said = visitor.getsockopt(_constants.SOL_SOCKET, option, struct.calcsize("3i"))
    return struct.unpack("3i", said)[1] in {0, os.geteuid()}


def _remove_stale(folder: Path) -> None:
    """Remove the sockets of processes that ended without removing theirs."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            pid = path.name.removeprefix(".")
            if pid.isdecimal() and not _lives(int(pid)):
                with contextlib.suppress(OSError):
                    path.unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
