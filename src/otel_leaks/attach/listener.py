"""
The door of a process that opted in: ``attach=True``.

A thread waits in ``accept``, which costs nothing. It answers one command at a time, of the same
user or of root, and no other: the socket is of mode 0600 in a folder of mode 0700, and the system
says who connected. Each process has its own door; a forked child closes what it inherited.
"""

from __future__ import annotations

import contextlib
import os
import socket as _constants
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from otel_leaks.attach import doors
from otel_leaks.attach.guest import Maker, answer
from otel_leaks.runtime import forks, native

__all__ = ["Door"]

JOIN_S = 0.5
"""How long closing waits for the thread; a census that is half done ends within some slices."""


@final
class Door:
    """
    Listens from ``open`` to ``close``, in the process that called it.

    Args:
        make: Makes what takes the censuses of one visit.
        complain: Called once in each process where it can't listen.
    """

    def __init__(self, make: Maker, complain: Callable[[Exception], None]) -> None:
        self._make = make
        self._complain = complain
        self._pid: int | None = None
        self._path: Path | None = None
        self._listener: Any = None
        self._visitor: Any = None
        self._thread: native.Thread | None = None
        # Taken by who opens and closes: the monitor, the application, its end.
        self._lock = forks.Lock()
        self._is_shut = False

    def open(self) -> None:
        """Listen, unless this process does; to be called now and again, as after a fork."""
        if self._pid == os.getpid() or not hasattr(_constants, "AF_UNIX"):
            return
        with self._lock:
            if self._is_shut:
                return
            self.forked()
            self._pid = os.getpid()  # Also where it fails: it is not tried again.
            try:
                self._listen_in(doors.made_folder(os.geteuid()))
            except Exception as error:  # Somebody else's folder, say; all else goes on.
                self._complain(error)

    def _listen_in(self, folder: Path) -> None:
        _remove_stale(folder)
        path = folder / str(self._pid)
        path.unlink(missing_ok=True)
        listener = _socket()
        try:
            listener.bind(os.fspath(path))
            path.chmod(0o600)
            listener.listen(4)
            self._path, self._listener = path, listener
            self._thread = native.Thread(self._listen, "otel-leaks-door")
            self._thread.start()
        except BaseException:
            self._listener = self._path = self._thread = None
            listener.close()
            path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Listen no more, end a visit that goes on, and remove the socket. For good."""
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
                # Wakes the thread that waits in it; on macOS a listener has to be closed.
                with contextlib.suppress(OSError):
                    each.shutdown(_constants.SHUT_RDWR)
        if thread is not None and not thread.is_current():
            thread.join(JOIN_S)
        with contextlib.suppress(OSError):
            listener.close()

    def forked(self) -> None:
        """Close what a child inherited, so that the parent's end is seen by who visits it."""
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
                # What is wrong with a visit ends it, and nothing else.
                with contextlib.suppress(Exception):
                    if not self._is_shut and _is_allowed(visitor):
                        answer(visitor, self._make)
            finally:
                self._visitor = None
                visitor.close()


def _socket(number: int | None = None) -> Any:
    # Not the module socket, which gevent replaces with one of greenlets. Private, and the base
    # of the public class on 3.10 to 3.15.
    import _socket as plain

    kinds = (_constants.AF_UNIX, _constants.SOCK_STREAM)
    made = plain.socket(*kinds) if number is None else plain.socket(*kinds, fileno=number)
    made.settimeout(None)
    return made


def _is_allowed(visitor: Any) -> bool:
    """Return whether it is of this user, or of root; the modes alone where nobody says."""
    option = getattr(_constants, "SO_PEERCRED", None)
    if option is None:
        return True
    said = visitor.getsockopt(_constants.SOL_SOCKET, option, struct.calcsize("3i"))
    return struct.unpack("3i", said)[1] in {0, os.geteuid()}


def _remove_stale(folder: Path) -> None:
    """Remove the sockets of processes that ended without a word."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name.isdecimal() and not _lives(int(path.name)):
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
