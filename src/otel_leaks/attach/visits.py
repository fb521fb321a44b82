"""
Inspects a process: through its socket if it opted in, else by ``sys.remote_exec``.

``remote_exec`` makes the process run a script when its main thread reaches its next bytecode. The
script starts a thread, which connects to a socket of ours; everything else goes over that. The
folder with both is removed when the visit ends, and so is the thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from otel_leaks.attach import bundle, endpoints
from otel_leaks.attach.nudge import nudge
from otel_leaks.attach.processes import (
    DISABLED,
    OPT_IN,
    PTRACE_WAYS,
    Process,
    read,
    refusal,
    waiting_in,
)
from otel_leaks.attach.wire import MAX_ANSWER_BYTES, VERSION, Wire, WireError
from otel_leaks.errors import AttachError
from otel_leaks.runtime import native

__all__ = ["Visit", "visit"]

STEP_S = 0.1
"""Seconds between two checks whether the process still exists."""
NUDGES_S = 0.3
"""Seconds between two nudges of a main thread that has not run the script yet."""
LATE_S = 0.2
"""How long to wait for a connection after the script was called off, seconds."""
MAX_FOLDER_BYTES = 75
"""Longest path of a folder for temporary files: socket addresses have 104 bytes on macOS."""
ANSWER_S = 300.0
"""Timeout of an answer, seconds: a census of a million tasks takes long under load."""


@final
class Visit:
    """
    A connection to a process.

    Args:
        connection: The connection to the thread that answers.
        process: What is known of the process.
    """

    def __init__(self, connection: socket.socket, process: Process) -> None:
        self.process = process
        connection.settimeout(ANSWER_S)
        self._wire = Wire(connection, MAX_ANSWER_BYTES)
        hello = self._receive()
        if hello.get("version") != VERSION:
            raise AttachError(
                f"process {process.pid} answers in version {hello.get('version')!r} of the "
                f"messages, this is {VERSION}: use the otel-leaks that is installed with it"
            )
        self.python = str(hello.get("python", ""))
        roots = hello.get("library_roots")
        self.library_roots = [str(each) for each in roots] if isinstance(roots, list) else []

    def look(
        self, *, ignore: str = "", kinds: tuple[str, ...] | None = None, why: str | None = None
    ) -> dict[str, Any]:
        """
        Return a census, as JSON values.

        Args:
            ignore: What not to count.
            kinds: The kinds to count, None for all.
            why: Sites whose holders to search for: a fingerprint, or a pattern.

        Raises:
            AttachError: The process ended, or can't answer.
        """
        with self._explained():
            self._wire.send({"ignore": ignore, "kinds": kinds, "why": why})
        answer = self._receive()
        if "error" in answer:
            raise AttachError(f"the census of process {self.process.pid}: {answer['error']}")
        if why is not None and "why" not in answer:
            raise AttachError(
                f"the otel-leaks in process {self.process.pid} is of a version that does not know "
                "--why: update it there"
            )
        return answer

    def history(self) -> dict[str, Any]:
        """
        Return what the process recorded of its last minutes, as JSON values.

        Raises:
            AttachError: It recorded nothing, it ended, or can't answer.
        """
        with self._explained():
            self._wire.send({"history": True})
        answer = self._receive()
        if "error" in answer:
            raise AttachError(f"the history of process {self.process.pid}: {answer['error']}")
        history = answer.get("history")
        if not isinstance(history, dict):
            raise AttachError(
                f"process {self.process.pid} remembers no history: that takes a process that is "
                "instrumented, with LeakInstrumentor().instrument() or opentelemetry-instrument, "
                "by this version of otel-leaks or a later one"
            )
        return history

    def _receive(self) -> dict[str, Any]:
        with self._explained():
            message = self._wire.receive()
        if message is None:
            raise AttachError(f"process {self.process.pid} ended, or the thread in it failed")
        return message

    @contextmanager
    def _explained(self) -> Iterator[None]:
        pid = self.process.pid
        try:
            yield
        except TimeoutError:
            raise AttachError(f"process {pid} did not answer for {ANSWER_S:.0f} s") from None
        except (OSError, WireError) as error:
            raise AttachError(f"the connection to process {pid} broke: {error}") from None


@contextmanager
def visit(pid: int, *, wait_s: float) -> Iterator[Visit]:
    """
    Connect to a process, and leave nothing behind.

    Args:
        pid: The pid of the process.
        wait_s: Seconds within which it must answer, > 0.

    Raises:
        AttachError: It can't be inspected.
    """
    process = read(pid)
    if process is None:
        if _is_gone(pid):
            raise AttachError(f"there is no process {pid}")
        process = Process(pid, (), os.geteuid(), None, None)
    why = refusal(process)
    if why is not None:
        raise AttachError(f"process {pid} can't be looked into: {why}")
    endpoint = endpoints.endpoint_of(pid, process.uid)
    way = (
        _through(endpoint, process, wait_s) if endpoint is not None else _sent_into(process, wait_s)
    )
    with way as connection:
        yield Visit(connection, process)
        _wait_for_end(connection)


def _is_gone(pid: int) -> bool:
    """Return whether a process has ended, also where its parent has not noticed."""
    return read(pid) is None and (Path("/proc/self").exists() or not _exists(pid))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _through(endpoint: Path, process: Process, wait_s: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            _connect(connection, os.fspath(endpoint), wait_s)
        except OSError as error:
            raise AttachError(
                f"process {process.pid} opted in, but does not listen at {endpoint}: {error}"
            ) from None
        yield connection


def _connect(connection: socket.socket, address: str, wait_s: float) -> None:
    """Connect, where others are asking as well: it answers one at a time, and few can wait."""
    deadline = native.monotonic() + wait_s
    while True:
        connection.settimeout(max(deadline - native.monotonic(), STEP_S))
        try:
            connection.connect(address)
        except BlockingIOError:  # On Linux, as many as can wait are waiting.
            if native.monotonic() >= deadline:
                raise
            native.sleep(STEP_S)
        else:
            return


@contextmanager
def _sent_into(process: Process, wait_s: float) -> Iterator[socket.socket]:
    remote_exec = getattr(sys, "remote_exec", None)
    if remote_exec is None:
        this = ".".join(map(str, sys.version_info[:2]))
        raise AttachError(
            f"process {process.pid} can't be looked into from Python {this}: run otel-leaks with "
            "the Python that it runs, 3.14 or later"
        )
    with _meeting_place(process) as (folder, listener):
        script = f"{folder}/visit.py"
        _send(remote_exec, process, script)
        connection = _awaited(listener, process, wait_s)
        if connection is None:
            # Call the script off if it has not run yet: a missing file would print an error.
            with contextlib.suppress(Exception):
                remote_exec(process.pid, os.devnull)
            connection = _awaited(listener, process, LATE_S)
        if connection is None:
            raise AttachError(_not_reached(process, wait_s))
        with connection:
            yield connection


def _send(remote_exec: Any, process: Process, script: str) -> None:
    pid = process.pid
    try:
        remote_exec(pid, script)
    except PermissionError as error:
        raise AttachError(
            f"process {pid} can't be looked into: the system refuses it ({error}); {PTRACE_WAYS}"
        ) from None
    except ProcessLookupError:
        raise AttachError(f"process {pid} has ended") from None
    except (OSError, RuntimeError) as error:
        raise AttachError(f"process {pid} can't be looked into: {_cause(process, error)}") from None


def _cause(process: Process, error: Exception) -> str:
    if read(process.pid) is None:
        return "it has ended"
    if "not enabled" in str(error) or process.is_disabled:
        return f"{DISABLED}: {OPT_IN}"
    if process.version is None:
        return f"it is no Python process, or one that this Python does not know ({error})"
    if process.is_elsewhere:
        return f"it runs in a container or a chroot, where otel-leaks has to run as well ({error})"
    return f"{error}; {OPT_IN}"


def _not_reached(process: Process, wait_s: float) -> str:
    where = waiting_in(process.pid)
    waits = f" (in the kernel: {where})" if where else ""
    return (
        f"process {process.pid} did not answer within {wait_s:g} s: a script from outside runs "
        f"when the main thread executes Python code again, and it waits{waits} or is busy in C. "
        "Nothing was left in it. Wait longer with --wait SECONDS, or let it do something"
    )


@contextmanager
def _meeting_place(process: Process) -> Iterator[tuple[str, socket.socket]]:
    """Create a folder that both sides see and only the process's user may enter."""
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="otel-leaks-ps-", dir=_temporary(process))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = [Path(folder)]
        if process.is_elsewhere:
            # With the same path: remote_exec checks the script here, the process reads it there.
            there = Path(f"/proc/{process.pid}/root{folder}")
            try:
                there.mkdir(mode=0o700)
            except OSError as error:
                raise AttachError(
                    f"process {process.pid} runs in a container or a chroot whose {there.parent} "
                    f"can't be written ({error}): run otel-leaks there"
                ) from None
            stack.callback(shutil.rmtree, there, ignore_errors=True)
            made.append(there)
        engine, script = bundle.engine(), bundle.script(folder)
        for each in made:
            _write(each / "visit.py", script, process.uid)
            _write(each / "engine", engine, process.uid)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        endpoint = made[-1] / "socket"
        listener.bind(os.fspath(endpoint))
        _hand_over(endpoint, 0o600, process.uid)
        listener.listen(1)
        for each in made:
            _hand_over(each, 0o700, process.uid)
        yield folder, listener


def _temporary(process: Process) -> str:
    """Return a folder for temporary files that the process can see as well."""
    own = tempfile.gettempdir()
    is_shared = process.uid == os.geteuid() and not process.is_elsewhere
    if is_shared and len(os.fsencode(own)) < MAX_FOLDER_BYTES:
        return own
    return "/tmp"  # noqa: S108 - made by mkdtemp below it


def _write(path: Path, data: bytes, uid: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    _hand_over(path, 0o600, uid)


def _hand_over(path: Path, mode: int, uid: int) -> None:
    path.chmod(mode)
    if uid != os.geteuid():
        os.chown(path, uid, -1)


def _awaited(listener: socket.socket, process: Process, wait_s: float) -> socket.socket | None:
    """Return the connection of the process, None if it does not connect in time."""
    deadline = native.monotonic() + wait_s
    next_nudge = native.monotonic() + STEP_S
    while (left := deadline - native.monotonic()) > 0:
        listener.settimeout(min(STEP_S, left))
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            if _is_of(connection, process):
                return connection
            connection.close()
        if _is_gone(process.pid):
            raise AttachError(f"process {process.pid} has ended")
        if native.monotonic() >= next_nudge:
            nudge(process.pid)
            next_nudge = native.monotonic() + NUDGES_S
    return None


def _is_of(connection: socket.socket, process: Process) -> bool:
    """Return whether a connection comes from the process, as far as the system reports that."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", said)
    return (pid, uid) == (process.pid, process.uid)


def _wait_for_end(connection: socket.socket) -> None:
    """Signal the end of the requests, and wait until the other side has cleaned up."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(STEP_S)
        deadline = native.monotonic() + 5.0
        while native.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1 << 16):
                    return
