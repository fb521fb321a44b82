"""The private copy that answers in a process without the package: on every Python, sent by hand."""

from __future__ import annotations

import json
import marshal
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_leaks.attach import boot, bundle, guest
from otel_leaks.attach.wire import MAX_ANSWER_BYTES, Wire

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")

# Does what the script of sys.remote_exec does, and says what is there when it is over.
PROGRAM = """
import asyncio, gc, json, marshal, os, sys, threading, _socket

async def leaked(event):
    await event.wait()

def visited(path, number, ends):
    try:
        with open(path, "rb") as file:
            engine = marshal.loads(file.read())
        space = {"__name__": engine["name"] + ".boot"}
        exec(marshal.loads(engine["boot"]), space)
        copy = space["Copy"](engine["codes"], engine["name"])
        try:
            copy.load("otel_leaks.attach.guest").be_a_guest(_socket.socket(fileno=number))
        finally:
            copy.remove()
    finally:
        ends()

async def main():
    loop, event, over = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(leaked(event)) for _ in range(50)]
    patchable = [asyncio.BaseEventLoop, asyncio.AbstractEventLoop, asyncio.Task, threading.Thread]
    before = [dict(vars(each)) for each in patchable]
    ends = lambda: loop.call_soon_threadsafe(over.set)
    thread = threading.Thread(target=visited, args=(sys.argv[1], int(sys.argv[2]), ends))
    thread.start()
    await over.wait()
    thread.join()
    print(json.dumps({
        "modules": [name for name in sys.modules if "otel_leaks" in name],
        "is_patched": before != [dict(vars(each)) for each in patchable],
        "tasks": len(asyncio.all_tasks()),
    }))

asyncio.run(main())
"""


def test_it_answers_where_the_package_is_not_and_leaves_nothing(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_bytes(bundle.engine())
    here, there = socket.socketpair()
    with here:
        with there:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", PROGRAM, str(engine), str(there.fileno())],
                pass_fds=[there.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        try:
            wire = Wire(here, MAX_ANSWER_BYTES)
            hello = wire.receive()
            assert hello is not None
            assert hello["python"] == sys.version.partition(" ")[0]
            for _ in range(2):
                wire.send({"ignore": 'ignore_thread("nobody")', "kinds": ["asyncio_task"]})
                answer: Any = wire.receive()
                assert answer is not None
                (found,) = answer["census"]["populations"]
                assert [(s["functions"][0], s["count"]) for s in found["sites"]] == [
                    ("__main__.leaked", 50),
                    ("__main__.main", 1),
                ]
                assert answer["pauses"]["loops"] == 1
            here.shutdown(socket.SHUT_WR)
            said, errors = process.communicate(timeout=300)
        finally:
            process.kill()
            process.communicate()
    assert errors == ""
    assert json.loads(said) == {"modules": [], "is_patched": False, "tasks": 51}


def test_every_module_that_the_copy_may_import_is_in_it() -> None:
    names = set(bundle._names())
    program = (
        "import sys; import otel_leaks.attach.guest as guest; guest.make_taker(lambda: None, 1);"
        "print(*(name for name in sys.modules if name.startswith('otel_leaks')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert set(done.stdout.split()) - names == set()


@pytest.fixture(scope="module")
def engine() -> dict[str, Any]:
    """What is sent into a process."""
    found: dict[str, Any] = marshal.loads(bundle.engine())
    return found


def test_beside_a_package_that_the_process_uses_itself_a_copy_shares_nothing_with_it(
    engine: dict[str, Any],
) -> None:
    before = dict(sys.modules)
    copy = boot.Copy(engine["codes"], engine["name"])
    try:
        copied = copy.load("otel_leaks.attach.guest")
        assert copied is copy.load("otel_leaks.attach.guest")
        assert copied.__name__ == f"{engine['name']}.attach.guest"
        assert copied.answer is not guest.answer
        assert copied.native.__name__ == f"{engine['name']}.runtime.native"
        # What is not of the package is the process's own.
        assert copied.sys is sys
        added = sys.modules.keys() - before.keys()
        assert [name for name in added if name.startswith(engine["name"])] == []
    finally:
        copy.remove()
    assert vars(copied) == {}


def test_a_copy_lacks_what_it_was_not_sent(engine: dict[str, Any]) -> None:
    copy = boot.Copy(engine["codes"], engine["name"])
    try:
        with pytest.raises(KeyError, match=r"otel_leaks\.cli"):
            copy.load("otel_leaks.cli")
    finally:
        copy.remove()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, as the address of a socket needs it."""
    made = tempfile.mkdtemp()
    yield Path(made)
    shutil.rmtree(made, ignore_errors=True)


def test_a_visit_removes_its_folder_before_it_answers(folder: Path, engine: dict[str, Any]) -> None:
    for name in ("visit.py", "engine"):
        (folder / name).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(folder / "socket"))
        listener.listen(1)
        listener.settimeout(300)
        visit = threading.Thread(target=boot.visit, args=(os.fspath(folder), engine))
        visit.start()
        connection, _ = listener.accept()
        with connection:
            hello = Wire(connection, MAX_ANSWER_BYTES).receive()
            assert hello is not None
            assert hello["pid"] == os.getpid()
            assert not folder.exists()
        visit.join()


def test_a_visit_that_nobody_waits_for_is_over_without_a_word(
    folder: Path, engine: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    boot.visit(os.fspath(folder), engine)
    assert capfd.readouterr() == ("", "")
