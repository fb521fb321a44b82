"""Which processes `otel-leaks ps` may look into, and what it says of the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from attach.targets import running
from otel_leaks.attach import processes, visits
from otel_leaks.attach.processes import DISABLED, OPT_IN, PTRACE_WAYS, Process, refusal
from otel_leaks.attach.visits import visit
from otel_leaks.cli import main
from otel_leaks.errors import AttachError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)
OWN = sys.version_info[:2]
READY = 'print("ready", flush=True)\nwake.wait()\n'
NEW = max(OWN, (3, 14))
PLAIN = Process(
    42, ("python", "app.py"), getattr(os, "geteuid", int)(), OWN, is_python=True, is_disabled=False
)


def said(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


@LINUX
def test_a_python_process_is_read() -> None:
    with running(READY) as target:
        found = processes.read(target.pid)
    assert found is not None
    assert replace(found, command=found.command[:2]) == Process(
        target.pid,
        (sys.executable, "-S"),
        os.geteuid(),
        OWN,
        is_python=True,
        is_disabled=False,
    )


@LINUX
@pytest.mark.parametrize(
    ("options", "env", "disabled"),
    [
        (["-X", "disable_remote_debug"], {}, True),
        (["-Xdisable_remote_debug"], {}, True),
        ([], {"PYTHON_DISABLE_REMOTE_DEBUG": "1"}, True),
        ([], {"PYTHON_DISABLE_REMOTE_DEBUG": ""}, False),
        (["-X", "dev"], {}, False),
    ],
)
def test_whether_remote_execution_is_disabled_is_read(
    options: list[str], env: dict[str, str], disabled: bool
) -> None:
    with running(READY, options=options, env=env) as target:
        found = processes.read(target.pid)
    assert found is not None
    assert found.is_disabled is disabled


@LINUX
def test_what_is_no_python_process_is_refused() -> None:
    process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdin.flush()
        # Before it says this it is still this Python, which is about to become it.
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(AttachError) as raised, visit(process.pid, wait_s=300):
            pass
        assert str(raised.value) == (
            f"process {process.pid} can't be looked into: it is no Python process"
        )
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_there_is_not_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    assert main(["ps", str(ended.pid)]) == 1
    assert capsys.readouterr().err == f"otel-leaks ps: there is no process {ended.pid}\n"


@pytest.mark.parametrize(
    ("process", "why"),
    [
        (replace(PLAIN, version=NEW), None if NEW == OWN else "runs"),
        (
            replace(PLAIN, version=(3, 13)),
            f"it runs Python 3.13, which takes no scripts from outside before 3.14: {OPT_IN}",
        ),
        (
            replace(PLAIN, version=(3, 99)),
            f"it runs Python 3.99, and this is {said(OWN)}: use the same version, for example "
            "uvx --python 3.99 otel-leaks ps 42",
        ),
        (replace(PLAIN, version=(3, 14), is_disabled=True), f"{DISABLED}: {OPT_IN}"),
        (replace(PLAIN, is_python=False, version=None), "it is no Python process"),
        (replace(PLAIN, is_python=None, version=None), f"it can't be read: {PTRACE_WAYS}"),
        (replace(PLAIN, version=(3, 10), has_endpoint=True), None),
        (replace(PLAIN, version=(3, 14), is_disabled=True, has_endpoint=True), None),
    ],
)
def test_each_refusal_says_what_to_do(process: Process, why: str | None) -> None:
    found = refusal(process)
    assert found == why if why != "runs" else found is not None


# What it needs it imports as root: another user may not be let into the folder of this Python.
AS_NOBODY = """
import os, sys
import pwd
from otel_leaks.attach import endpoints, processes
os.setgid(65534)
os.setuid(65534)
print(processes.refusal(processes.read(int(sys.argv[1]))))
"""


def refusal_as_nobody(pid: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(pid)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout.rstrip("\n")


@LINUX
@ROOT
def test_the_process_of_another_user_is_refused() -> None:
    with running(READY) as target:
        assert refusal_as_nobody(target.pid) == (
            "it belongs to the user root: run this as that user, or as root"
        )


# As Yama or a container has it: the user's own process, and the system refuses.
NOT_DUMPABLE = """
import ctypes
os.setgid(65534)
os.setuid(65534)
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
"""


@LINUX
@ROOT
def test_where_the_system_refuses_it_says_what_to_set() -> None:
    with running(NOT_DUMPABLE + READY) as target:
        assert refusal_as_nobody(target.pid) == f"it can't be read: {PTRACE_WAYS}"


def test_a_refusal_of_the_system_says_what_to_set() -> None:
    def refuses(pid: int, script: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    with pytest.raises(AttachError) as raised:
        visits._send(refuses, PLAIN, "/tmp/x.py")
    assert str(raised.value) == (
        "process 42 can't be looked into: the system refuses it ([Errno 1] Operation not "
        f"permitted); {PTRACE_WAYS}"
    )


@LINUX
def test_without_a_pid_the_processes_are_listed_with_why_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running(READY, options=["-X", "disable_remote_debug"]) as target:
        assert main(["ps"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert main(["ps", "--json"]) == 0
    (at,) = [i for i, line in enumerate(lines) if line.split()[0] == str(target.pid)]
    assert lines[at].split()[1] == said(OWN)
    assert lines[at + 1].strip().startswith("no: its remote " if OWN >= (3, 14) else "no: it runs ")
    every: list[dict[str, Any]] = [*map(json.loads, capsys.readouterr().out.splitlines())]
    (found,) = [each for each in every if each["pid"] == target.pid]
    assert (found["python"], found["refusal"] is None) == (said(OWN), False)
    assert os.getpid() not in [each["pid"] for each in every]


@pytest.mark.parametrize("pid", ["0", "-1", "x", "99999999999", "1.5"])
def test_a_pid_is_a_number(pid: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["ps", "--", pid])
    assert exited.value.code == 2
    assert f"must be the number of a process, got {pid!r}" in capsys.readouterr().err


def test_an_ignore_that_is_none_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "1", "--ignore", "ignore_cat('x')"]) == 2
    assert capsys.readouterr().err.startswith(
        "otel-leaks ps: --ignore: unknown ignore 'ignore_cat'; known are ignore_top_function"
    )
