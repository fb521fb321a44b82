"""
The connections of clients that threads serve, found by the socket that a thread was given.

A server with a thread for each connection passes it the socket, as an argument or as an attribute
of its own thread class. Only the socket's file descriptor is read from the socket, which lets no
other thread run; the rest is read from Linux's list of connections. A connection that the peer has
closed does not count, though the thread may still hold its socket. On other systems nothing is
known.
"""

from __future__ import annotations

import _socket
import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from otel_leaks.runtime.glimpse import (
    Root,
    Step,
    at,
    drained_until_error,
    is_subtype,
    item,
    members,
    of_type,
    present,
    root_of_ref,
)
from otel_leaks.runtime.threads import ThreadRef

__all__ = ["Accepted"]

TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
MAX_TABLE_BYTES = 4_000_000
"""About 25,000 connections."""
SLICE = 500
"""Lines of the list between two pauses."""
MAX_HELD = 100
"""Limit of attributes and arguments of a thread that are looked at."""
_ESTABLISHED, _LISTEN = b"01", b"0A"
_INODE = re.compile(r"socket:\[(\d+)\]")


def _values(dicts: Iterator[Any]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, of_type(dict)(dicts)))


_WAYS: tuple[tuple[Step, ...], ...] = (
    (members, item("_args"), present, of_type(tuple), chain.from_iterable),
    (members, _values),
)


class Accepted:
    """
    Reads which connections threads serve; the list of connections is read once.

    Args:
        pause: Called between slices of work.
    """

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        self._open: frozenset[str] | None = None

    def of(self, ref: ThreadRef) -> frozenset[str]:
        """Return the inodes of the live connections of clients that a thread holds."""
        root = root_of_ref(ref)
        held = {
            inode
            for way in _WAYS
            for number in _files(root, way)
            if (inode := _inode_of(number)) is not None
        }
        return frozenset(held & self._accepted()) if held else frozenset()

    def _accepted(self) -> frozenset[str]:
        """Return the inodes of connections that were accepted and that the peer has not closed."""
        if self._open is None:
            listening: set[bytes] = set()
            found: list[tuple[bytes, bytes]] = []
            for name in TABLES:
                for number, line in enumerate(_lines(name)):
                    if number % SLICE == SLICE - 1:
                        self._pause()
                    cells = line.split()
                    if len(cells) < 10:
                        continue
                    port, state, inode = cells[1].rpartition(b":")[2], cells[3], cells[9]
                    if state == _LISTEN:
                        listening.add(port)
                    elif state == _ESTABLISHED:
                        found.append((port, inode))
            self._open = frozenset(inode.decode() for port, inode in found if port in listening)
        return self._open


def _lines(name: str) -> list[bytes]:
    with contextlib.suppress(OSError), Path(name).open("rb") as table:
        read = table.read(MAX_TABLE_BYTES + 1)
        if len(read) <= MAX_TABLE_BYTES:
            return read.splitlines()[1:]
    return []


def _files(root: Root, way: tuple[Step, ...]) -> list[int]:
    """Return the file descriptors of the open sockets that *way* leads to."""
    kinds = drained_until_error(lambda: map(type, at(root, way)))[:MAX_HELD]
    found = []
    for number, kind in enumerate(kinds):
        if is_subtype(kind, _socket.socket):
            one: tuple[Step, ...] = (*way, _nth(number), partial(map, _socket.socket.fileno))
            found += drained_until_error(partial(at, root, one))
    return [each for each in found if each >= 0]


def _nth(number: int) -> Step:
    return lambda objects: islice(objects, number, number + 1)


def _inode_of(number: int) -> str | None:
    """Return the inode of the socket with a file descriptor, None if it is no socket any more."""
    try:
        found = _INODE.fullmatch(str(Path(f"/proc/self/fd/{number}").readlink()))
    except OSError:
        return None
    return found[1] if found is not None else None
