"""What ``otel-leaks ps`` says when a process answers wrongly, late, or not at all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from otel_leaks.attach import visits
from otel_leaks.attach.processes import DISABLED, OPT_IN, Process
from otel_leaks.attach.visits import Visit
from otel_leaks.attach.wire import MAX_REQUEST_BYTES, VERSION, Wire
from otel_leaks.errors import AttachError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")

HELLO = {"version": VERSION, "pid": 42, "python": "3.14.2", "library_roots": ["/lib"]}


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The command's end of a connection, and the process's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def process(**said: Any) -> Process:
    known = {"version": sys.version_info[:2], "is_python": True, **said}
    return Process(42, ("python", "app.py"), os.geteuid(), **known)


def test_a_process_that_speaks_another_version_is_refused_with_what_to_use(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    Wire(theirs, MAX_REQUEST_BYTES).send({**HELLO, "version": VERSION + 1})
    with pytest.raises(AttachError) as raised:
        Visit(ours, process())
    assert str(raised.value) == (
        f"process 42 answers in version {VERSION + 1} of the messages, this is {VERSION}: "
        "use the otel-leaks that is installed with it"
    )


@pytest.mark.parametrize(
    ("ask", "what"),
    [(Visit.look, "the census of process 42"), (Visit.history, "the history of process 42")],
)
def test_what_fails_in_the_process_is_said_here(
    ends: tuple[socket.socket, socket.socket], ask: Callable[[Visit], Any], what: str
) -> None:
    ours, theirs = ends
    wire = Wire(theirs, MAX_REQUEST_BYTES)
    wire.send(HELLO)
    wire.send({"error": "MemoryError: "})
    visited = Visit(ours, process())
    with pytest.raises(AttachError) as raised:
        ask(visited)
    assert str(raised.value) == f"{what}: MemoryError: "


def test_a_process_that_ends_before_it_answers_is_said_to_have_ended(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    Wire(theirs, MAX_REQUEST_BYTES).send(HELLO)
    visited = Visit(ours, process())
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(AttachError) as raised:
        visited.look()
    assert str(raised.value) == "process 42 ended, or the thread in it failed"


def test_an_answer_that_is_no_message_is_an_error(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    Wire(theirs, MAX_REQUEST_BYTES).send(HELLO)
    visited = Visit(ours, process())
    theirs.sendall(b"\x00\x00\x00\x02no")
    with pytest.raises(AttachError) as raised:
        visited.look()
    assert str(raised.value) == "the connection to process 42 broke: not JSON: JSONDecodeError"


def test_a_process_that_does_not_answer_in_time_is_given_up(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "ANSWER_S", 0.01)
    with pytest.raises(AttachError) as raised:
        Visit(ends[0], process())
    assert str(raised.value) == "process 42 did not answer for 0 s"


def test_a_door_at_which_nobody_listens_is_an_error(tmp_path: Path) -> None:
    door = tmp_path / "42"
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(os.fspath(door))
    with pytest.raises(AttachError) as raised, visits._through(door, process(), 1.0):
        pass
    assert str(raised.value).startswith(
        f"process 42 opted in, but does not listen at {door}: [Errno "
    )


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ProcessLookupError(3, "No such process"), "process {} has ended"),
        (RuntimeError("gone"), "process {} can't be looked into: it has ended"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says who has ended")
def test_a_process_that_ends_as_it_is_asked_is_said_to_have_ended(
    error: Exception, said: str, ended: int
) -> None:
    def fails(pid: int, script: str) -> None:
        raise error

    gone = Process(ended, (), os.geteuid(), None, None)
    with pytest.raises(AttachError) as raised:
        visits._send(fails, gone, "/tmp/x.py")
    assert str(raised.value) == said.format(ended)


@pytest.mark.parametrize(
    ("known", "error", "why"),
    [
        ({}, "Remote debugging is not enabled", f"{DISABLED}: {OPT_IN}"),
        ({"is_disabled": True}, "no", f"{DISABLED}: {OPT_IN}"),
        (
            {"version": None},
            "no",
            "it is no Python process, or one that this Python does not know (no)",
        ),
        (
            {"is_elsewhere": True},
            "no",
            "it runs in a container or a chroot, where otel-leaks has to run as well (no)",
        ),
        ({}, "Can't find it", f"Can't find it; {OPT_IN}"),
    ],
)
def test_what_python_refuses_is_explained_with_a_way_out(
    known: dict[str, Any], error: str, why: str
) -> None:
    def refuses(pid: int, script: str) -> None:
        raise RuntimeError(error)

    # This process, so that it has not ended.
    version, is_python = known.pop("version", sys.version_info[:2]), True
    alive = Process(os.getpid(), (), os.geteuid(), version, is_python, **known)
    with pytest.raises(AttachError) as raised:
        visits._send(refuses, alive, "/tmp/x.py")
    assert str(raised.value) == f"process {os.getpid()} can't be looked into: {why}"
