"""
Where a process that opted in listens: one Unix socket for each, in a folder of its user's.

``/run/user/UID/otel-leaks/PID`` where the system has such a folder, else
``otel-leaks-UID/PID`` below the one for temporary files. The folder is of mode 0700, the socket of
mode 0600.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from otel_leaks.errors import AttachError

__all__ = ["door_of", "folder_of", "made_folder"]


def folder_of(uid: int) -> Path:
    """Return the folder in which the processes of a user listen."""
    runtime = Path(f"/run/user/{uid}")
    if is_private(runtime, uid):
        return runtime / "otel-leaks"
    return Path(tempfile.gettempdir()) / f"otel-leaks-{uid}"


def door_of(pid: int, uid: int) -> Path | None:
    """Return the socket of a process, None where it has none."""
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
    Make the folder of the calling process's user.

    Raises:
        OSError: It can't be made.
        AttachError: Somebody else made it, or may write into it.
    """
    folder = folder_of(uid)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder, uid):
        raise AttachError(f"{folder} is not a folder of this user alone (mode 0700)")
    return folder


def is_private(folder: Path, uid: int) -> bool:
    """Return whether a folder is a user's alone."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == uid
        and stat.S_IMODE(found.st_mode) & 0o077 == 0
    )
