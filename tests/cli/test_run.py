"""Real programs under ``otel-leaks run``: their output, signals, status, and what is left."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from otel_leaks.cli.launch import command_of, environment
from otel_leaks.errors import UnknownProgramError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

# Under a shell's "&" SIGINT is ignored, and whoever is started inherits that.
OTEL_LEAKS = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from otel_leaks.cli import main; sys.exit(main())",
]
READY = "print('ready', flush=True)\n"
MINUTES = READY + "import time; time.sleep(300)\n"
"""Of a process that a failing test could not end."""
FOR_EVER = READY + "import time\nwhile True: time.sleep(60)\n"


class Run:
    """A program that runs under it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        assert process.stdout is not None
        self.out, self.err = process.stdout, process.stderr
        self.first_lines: list[str] = []

    def port(self) -> int:
        """Wait until it says where the page is."""
        while True:
            line = self.err.readline()
            assert line, "".join(self.first_lines)
            self.first_lines.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)/#token=", line)
            if found:
                return int(found[1])

    def wait_for(self, text: str) -> None:
        line = self.out.readline()
        while text not in line:
            assert line, self.err.read()
            line = self.out.readline()

    def below(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=100)
        err = "".join(self.first_lines) + err
        return self.process.returncode, out, err


@contextmanager
def running(*words: str | Path, **environ: str) -> Iterator[Run]:
    with subprocess.Popen(
        [*OTEL_LEAKS, "run", "--no-browser", "--port", "0", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OTEL_SDK_DISABLED": "true", **environ},
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Run(process)
        finally:
            # All that is of its session, whatever went wrong.
            for each in of_session(process.pid):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.kill()


CTRL_C = b"\x03"


class Terminal:
    """A program in the foreground of a terminal, and what is shown there."""

    def __init__(self, process: subprocess.Popen[bytes], keyboard: int) -> None:
        self.process = process
        self._keyboard = keyboard
        self.shown = ""

    def press(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until something is shown."""
        while (found := re.search(pattern, self.shown)) is None:
            assert self._read(), self.shown
        return found

    def below(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def end(self) -> int:
        """Wait until nobody has the terminal any more; return the status."""
        while self._read():
            pass
        return self.process.wait(timeout=100)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._keyboard], [], [], 100)
        assert ready, self.shown
        try:
            said = os.read(self._keyboard, 4096)
        except OSError:  # Linux's way to say that it is the end.
            return False
        self.shown += said.decode(errors="replace")
        return bool(said)


@contextmanager
def in_terminal(*words: str | Path, **environ: str) -> Iterator[Terminal]:
    # A session of its own, whose terminal it is: Ctrl-C comes from the kernel.
    become = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    command = [*OTEL_LEAKS[:2], become + OTEL_LEAKS[2], "run", "--no-browser", "--port", "0"]
    keyboard, terminal = os.openpty()
    with subprocess.Popen(
        [*command, *map(str, words)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "OTEL_SDK_DISABLED": "true", **environ},
        start_new_session=True,
    ) as process:
        os.close(terminal)
        try:
            yield Terminal(process, keyboard)
        finally:
            for each in of_session(process.pid):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.kill()
            os.close(keyboard)


def of_session(pid: int) -> list[psutil.Process]:
    """Return what lives of a session, whoever started it."""
    found = []
    for each in psutil.process_iter():
        try:
            if os.getsid(each.pid) == pid and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except (psutil.Error, OSError):
            continue
    return found


def gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait until they have ended; return those that have not."""
    _, alive = psutil.wait_procs(processes, timeout=60)
    return [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "app.py"
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_output_arguments_and_status_are_the_programs_own(
    script: Callable[[str], Path],
) -> None:
    path = script("""
        import sys
        print(sys.argv[1:], __name__)
        print("problem", file=sys.stderr)
        sys.exit(3)
    """)
    with running(path, "--port", "1", "--", "-m") as run:
        status, out, err = run.end()
    assert (status, out) == (3, "['--port', '1', '--', '-m'] __main__\n")
    assert re.fullmatch(
        r"otel-leaks: The page is at http://127\.0\.0\.1:\d+/#token=\S+\nproblem\n", err
    )


@pytest.mark.browser
def test_a_module_and_a_command_run_too(tmp_path: Path) -> None:
    (tmp_path / "mod.py").write_text("import sys; print(sys.argv[1:])")
    for words in (
        ["-m", "mod", "-x"],
        ["--", "-m", "mod", "-x"],
        ["--", "python", "-m", "mod", "-x"],
    ):
        with running(*words, PYTHONPATH=str(tmp_path)) as run:
            status, out, err = run.end()
        assert (words, status, out) == (words, 0, "['-x']\n"), err


@pytest.mark.parametrize("words", [["nothing.py"], ["no-such-command"]])
def test_what_is_not_there_is_refused(words: list[str]) -> None:
    with running(*words) as run:
        status, out, err = run.end()
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"otel-leaks run: there is no file .*{words[0]}.*\n", err)


def test_a_call_without_a_program_is_refused() -> None:
    with running() as run:
        assert run.end() == (2, "", "otel-leaks run: name a script, -m MODULE, or a command\n")


def test_a_program_that_a_signal_ended_has_a_shells_status(script: Callable[[str], Path]) -> None:
    with running(script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")) as run:
        assert run.end()[0] == 128 + signal.SIGKILL


COUNTS_SIGNALS = """
    import os, signal, sys, time

    got = []

    def note(number, _):
        name = signal.Signals(number).name
        got.append(name)
        os.write(1, f"got {name}\\n".encode())

    def end(*_):
        os.write(1, f"all {got}\\n".encode())
        sys.exit(5)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGUSR1, note)
    signal.signal(signal.SIGTERM, end)
    os.write(1, b"ready\\n")
    while True:
        time.sleep(60)
"""


def test_each_signal_that_it_is_sent_reaches_the_program_once(
    script: Callable[[str], Path],
) -> None:
    with running(script(COUNTS_SIGNALS)) as run:
        run.wait_for("ready")
        run.process.send_signal(signal.SIGINT)
        run.wait_for("got SIGINT")
        run.process.send_signal(signal.SIGUSR1)
        run.wait_for("got SIGUSR1")
        run.process.send_signal(signal.SIGTERM)
        assert run.end()[:2] == (5, "all ['SIGINT', 'SIGUSR1']\n")


def test_ctrl_c_of_a_terminal_reaches_the_program_once(script: Callable[[str], Path]) -> None:
    with in_terminal(script(COUNTS_SIGNALS)) as terminal:
        terminal.until("ready")
        below = terminal.below()
        assert len(below) == 2, below  # The warden and the program.
        terminal.press(CTRL_C)
        terminal.until("got SIGINT")
        terminal.process.send_signal(signal.SIGTERM)
        assert (terminal.end(), gone(below)) == (5, [])
        assert "all ['SIGINT']" in terminal.shown


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux")
def test_ctrl_c_of_a_terminal_ends_the_program_and_all_that_it_left(
    script: Callable[[str], Path],
) -> None:
    # Nor does the hangup end it, when the session that has the terminal ends.
    ignoring = "import signal\nfor each in (signal.SIGINT, signal.SIGHUP):\n"
    ignoring += "    signal.signal(each, signal.SIG_IGN)\n"
    path = script(f"""
        import subprocess, sys, threading
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", {ignoring + MINUTES!r}], stdout=subprocess.PIPE
        )
        child.stdout.readline()
        print("started", flush=True)
        threading.Event().wait()
    """)
    with in_terminal(path) as terminal:
        terminal.until("started")
        below = terminal.below()
        assert len(below) == 3, below  # The warden, the program and its child.
        terminal.press(CTRL_C)
        assert (terminal.end(), gone(below)) == (128 + signal.SIGINT, [])
        assert "KeyboardInterrupt" in terminal.shown
        assert of_session(terminal.process.pid) == []


def test_a_program_that_takes_no_ctrl_c_is_killed_at_the_third(
    script: Callable[[str], Path],
) -> None:
    with running(script(COUNTS_SIGNALS)) as run:
        run.wait_for("ready")
        for _ in range(2):
            run.process.send_signal(signal.SIGINT)
            run.wait_for("got SIGINT")
        run.process.send_signal(signal.SIGINT)
        assert run.end()[0] == 128 + signal.SIGKILL


@pytest.mark.browser
def test_it_ends_the_program_after_its_seconds(script: Callable[[str], Path]) -> None:
    with running("--seconds", "0.1", script(FOR_EVER)) as run:
        assert run.end()[0] == 128 + signal.SIGTERM


def test_nothing_is_left_when_the_server_is_killed(script: Callable[[str], Path]) -> None:
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {FOR_EVER!r}])"
    path = script(ignoring + child)
    with running(path) as run:
        run.wait_for("ready")
        below = run.below()
        assert len(below) == 3, below  # The warden, the program and its child.
        run.process.kill()
        assert gone(below) == []


@pytest.mark.browser
@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux")
def test_what_the_program_leaves_behind_is_ended(script: Callable[[str], Path]) -> None:
    path = script(f"""
        import subprocess, sys
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", {MINUTES!r}], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )
        child.stdout.readline()
        print("pid", child.pid, flush=True)
        import os; os._exit(0)
    """)
    with running(path) as run:
        status, out, _ = run.end()
        assert status == 0
        left = psutil.pids()
        child = int(out.split()[1])
        assert child not in left or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


@pytest.mark.browser
def test_the_environments_own_sitecustomize_runs_as_well(
    tmp_path: Path, script: Callable[[str], Path]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.greeting = 'hello'")
    with running(script("print(greeting)"), PYTHONPATH=str(tmp_path)) as run:
        assert run.end()[:2] == (0, "hello\n")


@pytest.mark.browser
def test_a_program_that_cannot_be_watched_runs_all_the_same(
    tmp_path: Path, script: Callable[[str], Path]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "otel_leaks.py").write_text("raise ImportError('not here')")
    # The command itself finds the package by its own path.
    source = f"import sys; sys.path.remove({str(other)!r})\n"
    program = str(script("print(1)"))
    call = [sys.executable, "-c", source + OTEL_LEAKS[-1], "run", "--no-browser", "--port", "0"]
    done = subprocess.run(
        [*call, program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(other)},
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (0, "1\n")
    problem = f"otel-leaks: {sys.executable} is not watched: ImportError: not here\n"
    assert problem in done.stderr


def changes(port: int) -> Iterator[dict[str, Any]]:
    """Yield what a page is sent, from the start on."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=100)) as connection:
        connection.request("GET", "/api/changes")
        response = connection.getresponse()
        for line in response:
            if line.startswith(b'data: {"epoch"'):
                yield json.loads(line.removeprefix(b"data: "))


LEAKING = """
    import asyncio

    async def main():
        print("ready", flush=True)
        tasks = []
        while True:
            tasks.append(asyncio.create_task(leak(), name="x"))
            await asyncio.sleep(0.01)

    async def leak():
        await asyncio.get_running_loop().create_future()

    asyncio.run(main())
"""


@pytest.mark.browser
def test_a_leak_is_on_the_page_with_who_created_it(script: Callable[[str], Path]) -> None:
    with running("--limit", "30", script(LEAKING)) as run:
        port = run.port()
        findings = (finding for data in changes(port) for finding in data["findings"])
        finding = next(each for each in findings if each["evidence"] == "threshold")
        assert (finding["function"], finding["limit"]) == ("__main__.leak", 30)
        assert finding["origin"][0] == "__main__.main"
        run.process.send_signal(signal.SIGINT)
        status, _, err = run.end()
    assert status == 128 + signal.SIGINT
    assert re.search(
        r"^otel-leaks: \d+ asyncio tasks pending, more than the limit of 30", err, re.MULTILINE
    )


@pytest.mark.browser
@pytest.mark.parametrize("workers", ["sync", "uvicorn_worker.UvicornWorker"])
def test_each_worker_of_a_gunicorn_is_on_the_page_and_ctrl_c_ends_all(
    tmp_path: Path, workers: str
) -> None:
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
        def wsgi(environ, respond):
            respond("200 OK", [])
            return [b"ok"]

        async def asgi(scope, receive, send):
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"ok"})
        """)
    )
    app = "app:wsgi" if workers == "sync" else "app:asgi"
    arguments = ["--workers", "2", "--worker-class", workers, "--bind", "127.0.0.1:0", app]
    with in_terminal("gunicorn", *arguments, PYTHONPATH=str(tmp_path)) as terminal:
        page = terminal.until(r"http://127\.0\.0\.1:(\d+)/#token=")
        seen: set[str] = set()
        for data in changes(int(page[1])):
            seen |= {each["instance"] for each in data["processes"]}
            if len(seen) >= 2:
                break
        below = terminal.below()
        terminal.press(CTRL_C)
        assert (terminal.end(), gone(below)) == (0, []), terminal.shown
        assert of_session(terminal.process.pid) == []


def test_the_environment_of_a_program_sends_here_and_keeps_what_the_user_set() -> None:
    given = {
        "PATH": os.defpath,
        "PYTHONPATH": "/mine",
        "NO_PROXY": "internal",
        "OTEL_SERVICE_NAME": "mine",
        "OTEL_PYTHON_LEAKS_INTERVAL_S": "2",
        "OTEL_EXPORTER_OTLP_HEADERS": "key=secret",
        "OTEL_SDK_DISABLED": "true",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    made = environment(given, "http://127.0.0.1:1", name="app", limit=7, origins="off")
    inside = made.pop("PYTHONPATH").split(os.pathsep)
    assert (Path(inside[0]) / "sitecustomize.py").exists()
    assert inside[1:] == ["/mine"]
    assert made == {
        "PATH": os.defpath,
        "NO_PROXY": "internal,127.0.0.1",
        "no_proxy": "internal,127.0.0.1",
        "OTEL_SERVICE_NAME": "mine",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_PYTHON_LEAKS_INTERVAL_S": "2",
        "OTEL_PYTHON_LEAKS_TASK_LIMIT": "7",
        "OTEL_PYTHON_LEAKS_THREAD_LIMIT": "7",
        "OTEL_PYTHON_LEAKS_OUTLIVED_S": "10",
        "OTEL_PYTHON_LEAKS_ORIGINS": "off",
    }


def test_a_command_is_found_in_this_environment_first(tmp_path: Path) -> None:
    command, name = command_of(["gunicorn", "app:app"], module=False)
    assert (command, name) == (
        [str(Path(sys.executable).parent / "gunicorn"), "app:app"],
        "gunicorn",
    )
    (tmp_path / "__main__.py").touch()
    assert command_of([str(tmp_path)], module=False)[0] == [sys.executable, str(tmp_path)]
    assert command_of(["a.b", "c"], module=True) == ([sys.executable, "-m", "a.b", "c"], "a.b")
    with pytest.raises(UnknownProgramError, match=r"there is no file x\.py"):
        command_of(["x.py"], module=False)
