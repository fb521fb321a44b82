"""
Where a process that opted in listens: each has a Unix socket, in a folder of its user.

The path is ``/run/user/UID/otel-leaks/PID`` if the system has such a folder, else
``otel-leaks-UID/PID`` in the folder for temporary files. The folder has mode 0700, the socket
mode 0600.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from otel_leaks.errors import AttachError

__all__ = ["endpoint_of", "folder_of", "made_folder"]


def folder_of(uid: int) -> Path:
    """Return the folder in which the processes of a user listen."""
    runtime = Path(f"/run/user/{uid}")
    if is_private(runtime, uid):
        return runtime / "otel-leaks"
    return Path(tempfile.gettempdir()) / f"otel-leaks-{uid}"


def endpoint_of(pid: int, uid: int) -> Path | None:
    """Return the path of a process's socket, None if it has none."""
    if not hasattr(os, "geteuid"):
        return None
    folder = folder_of(uid)
    path = folder / str(pid)
    try:
        found = path.lstat()
    except OSError:
        return None
    is_socket = stat.S_ISSOCK(found.st_mode) and found.st_uid == uid
    return path if is_socket and is_private(folder, uid) else None


def made_folder(uid: int) -> Path:
    """
    Create the folder of the calling process's user, and return it.

    Raises:
        OSError: It can't be created.
        AttachError: It belongs to another user, or others have access to it.
    """
    folder = folder_of(uid)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder, uid):
        raise AttachError(f"{folder} is not a folder of this user alone (mode 0700)")
    return folder


def is_private(folder: Path, uid: int) -> bool:
    """Return whether a folder belongs to a user, and no one else has access to it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == uid
        and stat.S_IMODE(found.st_mode) & 0o077 == 0
    )
