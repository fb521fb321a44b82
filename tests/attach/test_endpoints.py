"""Processes that opted in with attach=True: on every Python, over a socket of their own."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_leaks.attach import endpoints, listener
from otel_leaks.attach.processes import Process
from otel_leaks.attach.visits import Visit, visit
from otel_leaks.attach.wire import MAX_REQUEST_BYTES, VERSION, Wire
from otel_leaks.cli import main
from otel_leaks.errors import AttachError
from otel_leaks.runtime import native
from support.schemas import validate

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")

WAIT_S = 300.0
END_S = 30.0
"""Until a process that may end is killed."""

# Says "open" when the endpoint is: the first census has been taken.
PROGRAM = """
import os, sys, threading, time
from otel_leaks import LeakInstrumentor
from otel_leaks.attach import endpoints
from otel_leaks.telemetry.otlp import configure

def opened():
    while endpoints.endpoint_of(os.getpid(), os.geteuid()) is None:
        time.sleep(0.01)

def blocked(event):
    event.wait()

instrumentor = LeakInstrumentor()
instrumentor.instrument(interval_s=0.05, **{options})
event = threading.Event()
for _ in range(3):
    threading.Thread(target=blocked, args=(event,), daemon=True).start()
{main}
"""
# What it needs it imports as root: a stranger may not be let into this Python's folder.
STRANGER = """
import os, socket, sys
os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
try:
    said = connection.recv(1)
except ConnectionResetError:
    said = b""
print("answered" if said else "refused")
"""
WAITS = 'opened(); print("open", flush=True); sys.stdin.read()'


# The third has a worker too few for its jobs; all end with the event.
POOLS = f"""
from concurrent.futures import ThreadPoolExecutor
pools = [ThreadPoolExecutor(limit, thread_name_prefix="mail") for limit in (2, 3, 1)]
running = [pool.submit(blocked, event) for pool in pools]
while not all(job.running() for job in running):
    time.sleep(0.01)
waiting = [pools[2].submit(blocked, event) for _ in range(2)]
{WAITS}
event.set()
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files with a short name, as sockets need it."""
    folder = tempfile.mkdtemp()
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setenv("TMPDIR", folder)
    # One of a session of systemd's would be used before it.
    monkeypatch.setattr(endpoints, "folder_of", lambda uid: Path(folder) / f"otel-leaks-{uid}")
    yield Path(folder)
    shutil.rmtree(folder)


@contextlib.contextmanager
def instrumented(
    main: str = WAITS, options: str = "{'attach': True}", first: str = "open"
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{options}", options).replace("{main}", main)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "XDG_RUNTIME_DIR": "", "OTEL_SDK_DISABLED": "true"},
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if said != first:
            process.kill()
            raise AssertionError((said, process.communicate()[1]))
        yield process
    finally:
        # What is killed writes nothing of what coverage.py has measured.
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def threads(pid: int) -> list[tuple[str, int]]:
    with visit(pid, wait_s=WAIT_S) as process:
        census: Any = process.look(kinds=("thread",))["census"]
    (found,) = census["populations"]
    return sorted((site["functions"][0], site["count"]) for site in found["sites"])


def socket_of(process: subprocess.Popen[str]) -> Path:
    found = endpoints.endpoint_of(process.pid, os.geteuid())
    assert found is not None
    return found


def test_a_process_that_opted_in_is_looked_into_twice() -> None:
    with instrumented() as process:
        expected = [("__main__.<module>", 1), ("__main__.blocked", 3)]
        assert [threads(process.pid), threads(process.pid)] == [expected, expected]


def test_who_created_a_thread_is_known_there(capsys: pytest.CaptureFixture[str]) -> None:
    with instrumented() as process:
        assert main(["ps", str(process.pid), "--kind", "thread", "--wait", "300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("1. 3 threads: __main__.blocked")
    (created,) = [line for line in lines[at : at + 9] if line.startswith("     created   ")]
    assert created.endswith(" in __main__.<module>")


def test_the_last_minutes_of_an_instrumented_process_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def blocked_now(pid: int) -> list[int]:
        with visit(pid, wait_s=WAIT_S) as process:
            sites = process.history()["sites"]
        return [each["counts"][-1] for each in sites if each["function"] == "__main__.blocked"]

    with instrumented() as process:
        # The first census may have been before they were started.
        until(lambda: blocked_now(process.pid) == [3])
        assert main(["ps", str(process.pid), "--history", "--wait", "300"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert main(["ps", str(process.pid), "--history", "--json", "--wait", "300"]) == 0
        plain = json.loads(capsys.readouterr().out)
    assert said[0].startswith(f"process {process.pid}: ")
    assert said[1].split()[:2] == ["minutes", "ago"]
    assert said[1].split()[-1] == "now"
    rows = {line.rsplit("  ", 1)[0].strip(): line.split()[-1] for line in said[2:] if line}
    assert rows["__main__.blocked (thread)"] == "3"
    (blocked,) = [each for each in plain["sites"] if each["function"] == "__main__.blocked"]
    assert (blocked["kind"], blocked["counts"][-1]) == ("thread", 3)


def test_the_socket_and_its_folder_are_of_this_user_alone() -> None:
    with instrumented() as process:
        path = socket_of(process)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_is_off_by_default(temporary: Path) -> None:
    listens = 'print("otel_leaks.attach.listener" in sys.modules, flush=True); sys.stdin.read()'
    with instrumented(listens, "{}", first="False"):
        assert list(temporary.iterdir()) == []


def test_at_its_end_a_process_removes_its_socket() -> None:
    with instrumented() as process:
        path = socket_of(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(WAIT_S) == 0
        assert not path.exists()


def test_uninstrumenting_closes_the_endpoint_and_instrumenting_opens_another() -> None:
    again = (
        "opened(); path = endpoints.endpoint_of(os.getpid(), os.geteuid());"
        "instrumentor.uninstrument();"
        "assert not path.exists(); instrumentor.instrument(interval_s=0.05, attach=True);" + WAITS
    )
    with instrumented(again) as process:
        assert ("__main__.blocked", 3) in threads(process.pid)


def test_what_a_killed_process_left_is_removed_by_the_next() -> None:
    with instrumented() as process:
        left = socket_of(process)
        process.kill()
    assert left.exists()
    with instrumented():
        assert not left.exists()


def test_a_process_is_found_only_once_it_listens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[bool] = []
    make = listener._socket

    class Listening:
        def __init__(self) -> None:
            self._socket = make()

        def listen(self, backlog: int) -> None:
            found.append((tmp_path / str(os.getpid())).exists())
            self._socket.listen(backlog)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._socket, name)

    tmp_path.chmod(0o700)
    monkeypatch.setattr(endpoints, "folder_of", lambda _: tmp_path)
    monkeypatch.setattr(
        listener, "_socket", lambda number=None: Listening() if number is None else make(number)
    )
    ours = listener.SocketEndpoint(lambda *_: None, pytest.fail)  # type: ignore[arg-type]
    ours.open()
    try:
        assert endpoints.endpoint_of(os.getpid(), os.geteuid()) is not None
    finally:
        ours.close()
    assert found == [False]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_has_an_endpoint_of_its_own_and_not_that_of_its_parent() -> None:
    forks = (
        "opened(); child = os.fork()\n"
        "opened() if not child else None\n"
        "print('open' if not child else '', end='\\n' if not child else '', flush=True)\n"
        "print(os.getpid(), flush=True) if not child else None\n"
        "sys.stdin.read()"
    )
    with instrumented(forks) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        # Only the forking thread goes on in the child.
        assert threads(child) == [("__main__.<module>", 1)]
        assert ("__main__.blocked", 3) in threads(process.pid)
        path = socket_of(process)
        os.kill(process.pid, signal.SIGKILL)
        # The child does not hold what its parent listened on.
        with socket.socket(socket.AF_UNIX) as connection:
            until(lambda: connection.connect_ex(os.fspath(path)) != 0)
        assert threads(child) == [("__main__.<module>", 1)]


def test_a_visitor_that_says_nothing_does_not_keep_the_process() -> None:
    with instrumented() as process, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.fspath(socket_of(process)))
        assert connection.recv(4)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(WAIT_S) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="others refuse a connection too many")
def test_where_very_many_ask_at_once_each_gets_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()
    monkeypatch.setattr(native, "sleep", lambda _: tried.set())
    with instrumented() as process, contextlib.ExitStack() as stack:
        path = os.fspath(socket_of(process))
        # One is answered, and five can wait: one more than it listens for.
        waiting = []
        for _ in range(6):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.setblocking(False)
            deadline = time.monotonic() + WAIT_S
            while connection.connect_ex(path) != 0 and time.monotonic() < deadline:
                time.sleep(0.001)
            waiting.append(connection)
        found: list[list[tuple[str, int]]] = []
        asker = threading.Thread(target=lambda: found.append(threads(process.pid)))
        asker.start()
        assert tried.wait(WAIT_S)
        for connection in waiting:
            connection.close()
        asker.join(WAIT_S)
        assert ("__main__.blocked", 3) in found[0]


def test_a_killed_process_that_its_parent_has_not_waited_for_has_ended() -> None:
    with instrumented() as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(AttachError, match=f"^there is no process {process.pid}$"):
            threads(process.pid)


@pytest.mark.parametrize(
    "sent", [b"\x00\x00\x00\x02no", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02[]", b"GET / HTTP/1.0\n"]
)
def test_what_is_no_request_ends_that_visit_alone(sent: bytes) -> None:
    with instrumented() as process:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.fspath(socket_of(process)))
            connection.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(1 << 16):
                    pass
        assert ("__main__.blocked", 3) in threads(process.pid)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_another_user_is_refused() -> None:
    with instrumented() as process:
        path = socket_of(process)
        # Not even where the modes let it through.
        path.chmod(0o666)
        for folder in (path.parent, path.parent.parent):
            folder.chmod(0o711)
        asked = subprocess.run(
            [sys.executable, "-S", "-c", STRANGER, os.fspath(path)],
            stdout=subprocess.PIPE,
            text=True,
            timeout=WAIT_S,
            check=True,
        )
        assert asked.stdout == "refused\n"


def test_a_folder_that_others_may_enter_is_not_used(temporary: Path) -> None:
    folder = endpoints.folder_of(os.geteuid())
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(AttachError, match=r"is not a folder of this user alone \(mode 0700\)"):
        endpoints.made_folder(os.geteuid())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="scripts are taken from outside there")
@pytest.mark.skipif(sys.platform != "linux", reason="the version is read from /proc")
def test_before_314_a_process_that_did_not_opt_in_is_refused_with_what_to_do() -> None:
    with (
        instrumented('print("done", flush=True); sys.stdin.read()', "{}", first="done") as process,
        pytest.raises(AttachError) as raised,
        visit(process.pid, wait_s=WAIT_S),
    ):
        pass
    version = ".".join(map(str, sys.version_info[:2]))
    assert str(raised.value) == (
        f"process {process.pid} can't be looked into: it runs Python {version}, which takes no "
        "scripts from outside before 3.14: instrument it with attach=True "
        "(OTEL_PYTHON_LEAKS_ATTACH=true)"
    )


# What holds it

HELD = """
import asyncio

kept = {}
ready = threading.Event()

async def leaked():
    await asyncio.sleep(3600)

async def answer():
    return 42

async def main():
    kept["secret"] = [asyncio.create_task(leaked()) for _ in range(3)]
    kept["answers"] = [asyncio.create_task(answer()) for _ in range(2)]
    await asyncio.sleep(0)
    ready.set()
    await asyncio.sleep(3600)

threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
ready.wait()
opened(); print("open", flush=True); sys.stdin.read()
"""


def why(pid: int, site: str, *options: str) -> list[str]:
    return ["ps", str(pid), "--why", site, "--wait", "300", *options]


@pytest.mark.parametrize("pattern", ["__main__.leak*", "leaked"])
def test_what_holds_the_objects_of_a_site_is_said_with_the_time_that_it_took(
    capsys: pytest.CaptureFixture[str], pattern: str
) -> None:
    with instrumented(HELD) as process:
        assert main(why(process.pid, pattern)) == 0
    lines = capsys.readouterr().out.splitlines()
    asked = f"the search for what holds 1 site of {pattern} took "
    (took,) = [line.removeprefix(asked) for line in lines if line.startswith(asked)]
    assert re.fullmatch(r"[0-9.]+ s and [0-9]+ ms of CPU", took)
    # The others are not what was asked about.
    assert [line for line in lines if line[:2] == "1." or line[:2] == "2."] == [
        "1. 3 asyncio tasks: __main__.leaked"
    ]
    assert "     held by   __main__.kept['...'][…]" in lines


def test_the_busy_workers_of_a_pool_are_counted_though_only_pools_are_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with instrumented(POOLS) as process:
        assert main(["ps", str(process.pid), "--kind", "thread_pool", "--wait", "300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"Python {platform.python_version()}: 3 pools"
    assert lines[lines.index("1. 3 pools: mail") :] == [
        "1. 3 pools: mail",
        "     workers   3 of 3 busy, 6 at most; 2 jobs wait, in 1 of the 3 pools",
    ]


def test_a_site_is_asked_about_by_its_fingerprint_and_json_has_the_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def site(*, asked: str | None) -> Any:
        arguments = ["ps", str(process.pid), "--json", "--wait", "300"]
        assert main(arguments if asked is None else why(process.pid, asked, "--json")) == 0
        said = json.loads(capsys.readouterr().out)
        validate("ps", said)
        (found,) = [
            each
            for population in said["populations"]
            for each in population["sites"]
            if each["functions"][0] == "__main__.leaked"
        ]
        return said["why"], found

    with instrumented(HELD) as process:
        nothing, before = site(asked=None)
        search, after = site(asked=before["fingerprint"])
    assert (nothing, before["sample"]["held_by"]) == (None, None)
    assert (search["sites"], search["finished"]) == (1, [])
    assert after["sample"]["held_by"] == "__main__.kept['...'][…]"


def test_finished_tasks_that_something_refers_to_are_found_by_their_function(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with instrumented(HELD) as process:
        assert main(why(process.pid, "*answer")) == 0
    lines = capsys.readouterr().out.splitlines()
    # The module of what was given by -c is known as long as it runs.
    assert "2 finished tasks of answer, held by __main__.kept['...'][…]" in lines


def test_finished_tasks_are_counted_where_something_refers_to_many(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with instrumented(HELD.replace("range(2)", "range(150)")) as process:
        assert main(["ps", str(process.pid), "--wait", "300"]) == 0
        assert (
            "150 finished tasks of answer are still referenced; --why answer says by what\n"
            in capsys.readouterr().out
        )
        assert main(["ps", str(process.pid), "--json", "--wait", "300"]) == 0
        said = json.loads(capsys.readouterr().out)
        validate("ps", said)
    assert said["finished"] == [{"function": "answer", "count": 150, "held_by": None}]


def test_of_a_site_that_there_is_not_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with instrumented(HELD) as process:
        assert main(why(process.pid, "nobody")) == 0
    assert (
        "nothing here matches nobody: give a fingerprint, or a pattern for the name of a function, "
        "such as 'app.*'; the search took " in capsys.readouterr().out
    )


def test_a_process_with_an_older_otel_leaks_is_told_to_be_so() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = Wire(theirs, MAX_REQUEST_BYTES)
        wire.send({"version": VERSION, "pid": 42, "python": "3.11.7", "library_roots": []})
        wire.send({"census": {}})
        visited = Visit(ours, Process(42, (), 0, None, None))
        with pytest.raises(AttachError, match="does not know --why: update it there"):
            visited.look(why="app.*")
