"""``otel-leaks ps PID`` by sys.remote_exec, on processes that know nothing of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from attach.targets import LEAKING, WAITING, Target, running, threads_of
from otel_leaks.attach.processes import waiting_in
from otel_leaks.attach.visits import visit
from otel_leaks.cli import main
from otel_leaks.errors import AttachError
from otel_leaks.report.snapshot import snapshot_of
from support.schemas import validate

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 14) or sys.platform != "linux",
    reason="scripts are taken from outside from 3.14 on; /proc says what is left",
)

COMMAND = [sys.executable, "-c", "import sys; from otel_leaks.cli import main; sys.exit(main())"]
WAIT_S = 300.0
"""Long enough under any load; what is there answers at once."""


def leaking(tasks: int, threads: int, *, busy: bool = False) -> str:
    return LEAKING.format(tasks=tasks, threads=threads, busy=busy)


def counted(pid: int) -> dict[str, list[tuple[str, int]]]:
    with visit(pid, wait_s=WAIT_S) as process:
        census: Any = process.look()["census"]
    return {
        each["kind"]: [(site["functions"][0], site["count"]) for site in each["sites"]]
        for each in census["populations"]
    }


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


MANY = {
    "thread": [("__main__.blocked", 80), ("__main__.<module>", 1), ("__main__.answer", 1)],
    "asyncio_task": [("__main__.leaked", 20_000), ("__main__.leak_tasks", 1)],
}


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_twenty_thousand_tasks_and_eighty_threads_are_one_site_each_twice_in_a_row(
    busy: bool,
) -> None:
    with running(leaking(20_000, 80, busy=busy)) as target:
        first, second = counted(target.pid), counted(target.pid)
        assert target.process.poll() is None
        assert target.end() == ""
    # Which of two sites of one thread comes first is up to their fingerprints.
    found = {kind: sorted(sites) for kind, sites in first.items()}
    assert found == {kind: sorted(sites) for kind, sites in MANY.items()}
    assert {kind: sorted(sites) for kind, sites in second.items()} == found


def test_under_load_the_counts_are_exact() -> None:
    with ExitStack() as stack:
        for _ in range(4):
            load = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(load.wait)
            stack.callback(load.kill)
        target = stack.enter_context(running(leaking(20_000, 80, busy=True)))
        found = counted(target.pid)
    assert {kind: sorted(sites) for kind, sites in found.items()} == {
        kind: sorted(sites) for kind, sites in MANY.items()
    }


def is_as_before(target: Target, before: dict[str, Any]) -> bool:
    now = target.ask()
    # A thread that has said goodbye still has to end.
    if now["threads"] != before["threads"]:
        return False
    assert {**now, "turns": 0} == {**before, "turns": 0}
    return True


def test_nothing_is_left_in_the_process(temporary: Path) -> None:
    with running(leaking(50, 3, busy=True)) as target:
        before = target.ask()
        for _ in range(2):
            counted(target.pid)
            until(lambda: is_as_before(target, before))
        turns = target.ask()["turns"]
        until(lambda: target.ask()["turns"] > turns)
        assert target.end() == ""
    assert list(temporary.iterdir()) == []


def test_when_the_command_is_killed_nothing_is_left_either(temporary: Path) -> None:
    with running(leaking(50, 3)) as target:
        before = target.ask()
        command = subprocess.Popen(
            [*COMMAND, "ps", str(target.pid), "--watch", "0.05", "--json"],
            stdout=subprocess.PIPE,
        )
        try:
            assert command.stdout is not None
            assert command.stdout.readline().startswith(b"{")
            assert threads_of(target.pid) == before["threads"] + 1
        finally:
            command.kill()
            command.communicate()
        until(lambda: is_as_before(target, before))
        assert target.end() == ""
    assert list(temporary.iterdir()) == []


def test_a_main_thread_that_waits_for_a_lock_is_given_up_and_not_disturbed(
    temporary: Path,
) -> None:
    with running(WAITING) as target:
        before = target.ask()
        # It says that it is ready a moment before it waits.
        until(lambda: "futex" in waiting_in(target.pid))
        with pytest.raises(AttachError) as raised, visit(target.pid, wait_s=0.5):
            pass
        assert str(raised.value).startswith(
            f"process {target.pid} did not answer within 0.5 s: a script from outside runs when "
            "the main thread executes Python code again, and it waits"
        )
        assert list(temporary.iterdir()) == []
        assert target.ask("wake")["modules"] == []
        assert is_as_before(target, before)
        assert target.end() == ""


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["-X", "disable_remote_debug"], {}),
        ([], {"PYTHON_DISABLE_REMOTE_DEBUG": "1"}),
    ],
    ids=["option", "variable"],
)
def test_a_process_that_disabled_it_is_refused_with_what_to_do(
    options: list[str], env: dict[str, str]
) -> None:
    with (
        running(leaking(1, 0), options=options, env=env) as target,
        pytest.raises(AttachError) as raised,
        visit(target.pid, wait_s=WAIT_S),
    ):
        pass
    assert str(raised.value) == (
        f"process {target.pid} can't be looked into: its remote execution is disabled "
        "(PYTHON_DISABLE_REMOTE_DEBUG or -X disable_remote_debug): instrument it with attach=True "
        "(OTEL_PYTHON_LEAKS_ATTACH=true)"
    )


def test_json_is_what_a_snapshot_is_read_from(capsys: pytest.CaptureFixture[str]) -> None:
    with running(leaking(5, 2)) as target:
        assert main(["ps", str(target.pid), "--json", "--wait", "300"]) == 0
    said = json.loads(capsys.readouterr().out)
    validate("ps", said)
    snapshot = snapshot_of(said)
    assert {each.kind: each.count for each in snapshot.populations} == {
        "thread": 4,
        "asyncio_task": 6,
    }
    assert snapshot.pauses.loops == 1
    assert {**snapshot.to_json()} == json.loads(json.dumps(said), object_hook=as_tuples)


def test_what_holds_the_objects_of_a_site_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with running(leaking(5, 2)) as target:
        assert main(["ps", str(target.pid), "--why", "__main__.blocked", "--wait", "300"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert main(["ps", str(target.pid), "--why", "__main__.leaked", "--wait", "300"]) == 0
        lines += capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("     held by   ")] == [
        "     held by   nothing: a running thread lives by itself",
        "     held by   __main__.leak_tasks.<locals>.tasks[…]",
    ]


def as_tuples(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in plain.items()}


def test_a_person_is_shown_the_chain_the_age_and_the_fingerprint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running(leaking(5, 2)) as target:
        assert main(["ps", str(target.pid), "--kind", "asyncio_task", "--wait", "300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"process {target.pid}: {sys.executable} -S -c ")
    assert lines[1] == f"Python {'.'.join(map(str, sys.version_info[:3]))}: 6 asyncio tasks"
    assert "the longest pause of the event loop was " in lines[2]
    at = lines.index("1. 5 asyncio tasks: __main__.leaked")
    assert lines[at + 1].endswith(" in __main__.leaked")
    assert lines[at + 2].endswith(" in asyncio.locks.Event.wait")
    assert "     awaited   no, nothing awaits it" in lines[at:]
    assert any(line.startswith('     ignore    ignore_fingerprint("') for line in lines[at:])


def test_what_is_ignored_is_not_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    ignore = 'ignore_any_function("__main__.leaked", reason="known")'
    with running(leaking(5, 0)) as target:
        argv = ["ps", str(target.pid), "--kind", "asyncio_task", "--ignore", ignore]
        assert main([*argv, "--wait", "300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith(": 1 asyncio task")
    assert lines[3] == f"ignored: 5 by {ignore}"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_process_that_is_not_instrumented_remembers_no_history() -> None:
    with running(leaking(1, 1)) as target:
        with (
            visit(target.pid, wait_s=WAIT_S) as process,
            pytest.raises(AttachError, match="remembers no history: that takes a process that is"),
        ):
            process.history()
        assert target.end() == ""


def test_root_looks_into_the_process_of_another_user() -> None:
    try:
        with running(leaking(5, 0), user=65534) as target:
            assert counted(target.pid)["asyncio_task"] == [
                ("__main__.leaked", 5),
                ("__main__.leak_tasks", 1),
            ]
            assert target.end() == ""
    except PermissionError:
        pytest.skip("this Python can't be run by another user")
