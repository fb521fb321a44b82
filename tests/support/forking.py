"""
Runs of pytest that start at once: forked from a process that has imported pytest already.

A run takes a third of the time that it does with an interpreter of its own, most of which
is the import of pytest. All else is as there: a process with an environment, a folder and
streams of its own, that imports the plugins and the suite, and ends as an interpreter does.
Nothing of otel-leaks is imported before the fork, nor any plugin of pytest.

    python forking.py FD     # serves; FD is the socket of the one that asks
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

PRELOADED = (
    *("asyncio", "concurrent.futures.process", "concurrent.futures.thread", "email.parser"),
    *("execnet", "multiprocessing.connection", "multiprocessing.queues", "pdb", "ssl", "sysconfig"),
)
"""What pytest, the plugins of others and otel-leaks import in each run, beside pytest itself."""


class Forking:
    """One server, which runs one pytest at a time."""

    def __init__(self) -> None:
        own, its = socket.socketpair()
        with its:
            self._server = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno())],
                env=_without_paths(os.environ),
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._control = own
        self._python = _of_the_interpreter(os.environ)

    def close(self) -> None:
        self._control.close()
        self._server.wait()

    def can_run(self, environ: Mapping[str, str]) -> bool:
        """Say whether an interpreter would start with *environ* as the server did."""
        return _of_the_interpreter(environ) == self._python

    def run(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        cwd: str,
        stdout: IO[Any],
        stderr: IO[Any],
    ) -> Forked:
        """Start pytest, with nothing to read from its standard input."""
        asked = {"arguments": list(arguments), "environ": dict(environ), "cwd": cwd}
        with Path(os.devnull).open("rb") as stdin:
            streams = [stdin.fileno(), stdout.fileno(), stderr.fileno()]
            socket.send_fds(self._control, [b"+"], streams)
        self._control.sendall(json.dumps(asked).encode() + b"\n")
        return Forked(int(_line(self._control)), self._control)


class Forked:
    """A run, with what pytester needs of `subprocess.Popen`."""

    stdin = None

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self._control = control
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._control.settimeout(timeout)
            try:
                self.returncode = int(_line(self._control))
            except TimeoutError:
                raise subprocess.TimeoutExpired("pytest", timeout or 0.0) from None
            finally:
                self._control.settimeout(None)
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, 9)


def _line(control: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        some = control.recv(1 << 16)
        if not some:
            raise EOFError("the other end is gone")
        line += some
    return line


def _without_paths(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name != "PYTHONPATH"}


def _of_the_interpreter(environ: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in _without_paths(environ).items() if k.startswith("PYTHON")}


def preload() -> None:
    from _pytest.config import default_plugins

    for name in (*(f"_pytest.{each}" for each in default_plugins), *PRELOADED):
        importlib.import_module(name)
    # A run collects several times: what is here already would be gone through, and copied.
    gc.collect()
    gc.freeze()


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return it in the child that is to run it, and None at the end."""
    while True:
        some, streams, *_ = socket.recv_fds(control, 1, 3)
        if not some:
            return None
        try:
            asked: dict[str, Any] = json.loads(_line(control))
        except EOFError:
            return None
        pid = os.fork()
        if pid == 0:
            control.close()
            for number, each in enumerate(streams):
                os.dup2(each, number)
            os.closerange(3, max(streams) + 1)
            return asked
        for each in streams:
            os.close(each)
        control.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        control.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def become(asked: dict[str, Any]) -> None:
    """Go on as ``python -m pytest`` does."""
    os.environ.clear()
    os.environ.update(asked["environ"])
    os.chdir(asked["cwd"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [asked["cwd"], *filter(None, paths)]
    sys.argv[:] = ["-m", *asked["arguments"]]


if __name__ == "__main__":
    del sys.path[0]  # The folder of this file.
    preload()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        become(asked)
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)
