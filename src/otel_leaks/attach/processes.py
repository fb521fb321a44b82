"""
The Python processes of this machine, and whether they can be inspected.

Read from /proc, so only on Linux; elsewhere nothing is known before a process is tried.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from otel_leaks.attach import endpoints

__all__ = [
    "DISABLED",
    "OPT_IN",
    "PTRACE_WAYS",
    "Process",
    "processes",
    "read",
    "refusal",
    "waiting_in",
]

PROC = Path("/proc")
REMOTE_EXEC: tuple[int, int] = (3, 14)
"""The first version that accepts remote scripts."""

_EXECUTABLE = re.compile(r"(?:^|/)(?:lib)?python(\d)\.(\d+)[a-z]*(?:\.so[.\d]*)?(?: \(deleted\))?$")
_MODULE = re.compile(r"/lib/python(\d)\.(\d+)[a-z]*/|\.cpython-(\d)(\d+)[a-z]*-")
_HAS_ENDED = ("State:\tZ", "State:\tX")
"""States of what is no process any more, but that its parent has not waited for it."""
_PYTHON = re.compile(r"(?:^|/)(?:lib)?python[\d.]*[a-z]*(?:\.so[.\d]*)?(?: \(deleted\))?$")


@dataclass(frozen=True, slots=True)
class Process:
    """What is known of a process from /proc."""

    pid: int
    command: tuple[str, ...]
    uid: int
    version: tuple[int, int] | None
    """The version of its Python; None if it has none, or this can't be read."""
    is_python: bool | None
    """None if this can't be read."""
    is_disabled: bool | None = None
    """Whether remote execution was turned off; None if this can't be read."""
    has_endpoint: bool = False
    """Whether its instrumentation opted in."""
    is_elsewhere: bool = False
    """Whether it sees other files, as in a container or a chroot."""

    @property
    def title(self) -> str:
        """The command line, on one line."""
        return " ".join(self.command)


def processes() -> list[Process]:
    """Return the visible Python processes except this one, by pid."""
    found = []
    for folder in PROC.iterdir() if PROC.is_dir() else ():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            process = read(int(folder.name))
            if process is not None and _is_shown(process):
                found.append(process)
    return sorted(found, key=lambda each: each.pid)


def _is_shown(process: Process) -> bool:
    if process.is_python is None:
        return bool(process.command) and _PYTHON.search(process.command[0]) is not None
    return process.is_python


def read(pid: int) -> Process | None:
    """Return what is known of a process, None if there is none."""
    folder = PROC / str(pid)
    try:
        command = (folder / "cmdline").read_bytes()
        uid = _effective_uid(folder)
    except (OSError, ValueError):
        return None
    words = tuple(os.fsdecode(each) for each in command.split(b"\0")[:-1])
    version: tuple[int, int] | None = None
    is_python: bool | None = None
    with contextlib.suppress(OSError):
        mapped = _mapped(folder)
        version = _version_of(mapped)
        is_python = version is not None or any(map(_PYTHON.search, mapped))
    disabled: bool | None = None
    with contextlib.suppress(OSError):
        disabled = _is_disabled(words, (folder / "environ").read_bytes())
    elsewhere = False
    with contextlib.suppress(OSError):
        here, there = PROC / "self", folder
        elsewhere = not (there / "root").samefile("/") or not (
            (there / "ns/mnt").samefile(here / "ns/mnt")
        )
    endpoint = endpoints.endpoint_of(pid, uid) is not None
    return Process(pid, words, uid, version, is_python, disabled, endpoint, elsewhere)


def refusal(process: Process) -> str | None:
    """Return why a process can't be inspected, and what to do; None if it can be tried."""
    own = os.geteuid() if hasattr(os, "geteuid") else process.uid
    if own not in {0, process.uid}:
        return f"it belongs to {_user(process.uid)}: run this as that user, or as root"
    if process.has_endpoint:
        return None
    if process.is_python is None:
        return f"it can't be read: {PTRACE_WAYS}"
    return _of_version(process) if process.is_python else "it is no Python process"


def _of_version(process: Process) -> str | None:
    version = process.version
    if version is None:
        return None
    said = ".".join(map(str, version))
    if version < REMOTE_EXEC:
        return f"it runs Python {said}, which takes no scripts from outside before 3.14: {OPT_IN}"
    if process.is_disabled:
        return f"{DISABLED}: {OPT_IN}"
    if version != sys.version_info[:2]:
        this = ".".join(map(str, sys.version_info[:2]))
        return (
            f"it runs Python {said}, and this is {this}: use the same version, for example "
            f"uvx --python {said} otel-leaks ps {process.pid}"
        )
    return None


OPT_IN = "instrument it with attach=True (OTEL_PYTHON_LEAKS_ATTACH=true)"
DISABLED = (
    "its remote execution is disabled (PYTHON_DISABLE_REMOTE_DEBUG or -X disable_remote_debug)"
)
PTRACE_WAYS = (
    "run this as root (sudo), in a container with --cap-add=SYS_PTRACE; as the same user after "
    "sysctl kernel.yama.ptrace_scope=0"
)


def _mapped(folder: Path) -> list[str]:
    """Return the files that a process has mapped, its executable first."""
    files = [os.fspath((folder / "exe").readlink())]
    with (folder / "maps").open("rb") as maps:
        for line in maps:
            parts = line.split(maxsplit=5)
            if len(parts) == 6 and parts[5].startswith(b"/"):
                files.append(os.fsdecode(parts[5].rstrip(b"\n")))
    return list(dict.fromkeys(files))


def _version_of(files: list[str]) -> tuple[int, int] | None:
    for pattern in (_EXECUTABLE, _MODULE):
        for file in files:
            # A process that maps Python's library is one; other files of Python prove nothing.
            found = pattern.search(file)
            if found is not None:
                major, minor = (each for each in found.groups() if each is not None)
                return int(major), int(minor)
    return None


def _is_disabled(command: tuple[str, ...], environment: bytes) -> bool:
    variables = environment.split(b"\0")
    # As for all of Python's variables, an empty one counts as unset.
    if any(
        each.startswith(b"PYTHON_DISABLE_REMOTE_DEBUG=") and not each.endswith(b"=")
        for each in variables
    ):
        return True
    return "-Xdisable_remote_debug" in command or ("-X", "disable_remote_debug") in pairwise(
        command
    )


def _effective_uid(folder: Path) -> int:
    for line in (folder / "status").read_text().splitlines():
        if line.startswith(_HAS_ENDED):
            break
        if line.startswith("Uid:"):
            return int(line.split()[2])
    raise ValueError


def _user(uid: int) -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user {uid}"


def waiting_in(pid: int) -> str:
    """Return the kernel function that the main thread waits in, empty if it is not known."""
    with contextlib.suppress(OSError):
        said = (PROC / f"{pid}/task/{pid}/wchan").read_text().strip()
        return "" if said == "0" else said
    return ""
