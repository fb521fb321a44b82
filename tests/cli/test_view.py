from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from otel_leaks.cli import main

OTEL_LEAKS = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from otel_leaks.cli import main; sys.exit(main())"
)


@contextmanager
def view(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", OTEL_LEAKS, "view", "--no-browser", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


PAGE = r"The page is at http://127\.0\.0\.1:(\d+)/#token=\S+\n"
SENT = (
    r"Exporters send to http://127\.0\.0\.1:(\d+) \(OTLP over HTTP\) or "
    r"http://127\.0\.0\.1:(\d+) \(gRPC\)\.\n"
)


def test_it_says_where_it_is_and_ends_after_its_seconds() -> None:
    with view("--port", "0", "--grpc-port", "0", "--seconds", "0.1") as process:
        out, err = process.communicate(timeout=100)
    said = re.fullmatch(PAGE + SENT + r"Ctrl-C ends it\.\n", out)
    assert said is not None, out
    assert said[1] == said[2]
    assert (process.returncode, err) == (0, "")


def test_a_taken_port_leaves_the_next_free_one_with_a_word_about_it() -> None:
    with ExitStack() as stack:
        http, grpc = (
            stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for _ in range(2)
        )
        ports = ("--port", str(http), "--grpc-port", str(grpc), "--seconds", "0.1")
        process = stack.enter_context(view(*ports))
        out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    said = re.fullmatch(
        rf"Port {http} is taken; using (\d+)\.\n"
        rf"Port {grpc} is taken; using (\d+) for gRPC\.\n" + PAGE + SENT + r"Ctrl-C ends it\.\n",
        out,
    )
    assert said is not None, out
    assert (said[1], said[2]) == (said[3], said[5])


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_ends_it_without_a_traceback() -> None:
    with view("--port", "0", "--grpc-port", "0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "Ctrl-C" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=100) == ("", "\nStopped.\n")
        assert process.returncode == 130


@pytest.mark.parametrize("port", ["-1", "65536", "http", ""])
def test_a_port_is_one(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["view", f"--port={port}"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        "otel-leaks view: error: argument --port: must be a port from 1 to 65535, or 0 for any "
        f"free one, got {port!r}"
    )


@pytest.mark.parametrize("command", ["view", "run", "demo"])
def test_without_the_extra_it_says_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: str) -> Any:
        return None

    monkeypatch.setattr("importlib.util.find_spec", missing)
    assert main([command, *(["app.py"] if command == "run" else [])]) == 2
    assert capsys.readouterr().err == (
        f"otel-leaks {command} needs rich, starlette, uvicorn: pip install 'otel-leaks[view]'\n"
    )
