"""A redis and a PostgreSQL for the services of these tests, each on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from e2e.receiving import eventually
from e2e.serving import free_ports
from reliability.environment import CACHE
from support.debian import unpacked

__all__ = ["ServerMissing", "listens", "postgres", "redis"]

STOP_S = 20.0


class ServerMissing(Exception):  # noqa: N818 - it is an answer, not a fault
    """Says which server can't be had, and how to get it."""


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """
    Run a redis that keeps nothing; yield its URL.

    Raises:
        ServerMissing: There is none, and none can be had.
    """
    (port,) = free_ports(1)
    program, variables = _program("redis-server", "redis-server")
    command = [str(program), f"--port {port}", "--bind 127.0.0.1", '--save ""', "--appendonly no"]
    with _running(" ".join(command).split(), variables, port):
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """
    Run a PostgreSQL with an empty database; yield its URL.

    Raises:
        ServerMissing: There is none, and none can be had.
    """
    (port,) = free_ports(1)
    # It refuses to run as root, and its user may enter neither the cache nor pytest's folders.
    user = "nobody" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="otel-leaks-postgres-") as name:
        folder = Path(name)
        program, variables = _program("postgres", "postgresql", copy_to=folder / "debian")
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        _run(
            [
                str(program.with_name("initdb")),
                *f"-U postgres -A trust -N -D {folder}/data".split(),
            ],
            variables,
            user,
        )
        options = f"-D {folder}/data -p {port} -h 127.0.0.1 -k {folder} -c fsync=off -N 200"
        with _running([str(program), *options.split()], variables, port, user):
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _program(
    name: str, package: str, *, copy_to: Path | None = None
) -> tuple[Path, Mapping[str, str]]:
    """Return a program, and the variables with which it finds its libraries."""
    found = shutil.which(name) or next(
        map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    if found is not None:
        return Path(found).resolve(), {}
    try:
        kept = unpacked(package, CACHE, dependencies=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServerMissing(
            f"no {name}: it is not on PATH, and Debian's package {package} can't be had ({error})"
        ) from None
    if copy_to is not None:
        kept = Path(shutil.copytree(kept, copy_to, symlinks=True))
    (program,) = kept.glob(f"usr/**/bin/{name}")
    libraries = {str(each.parent) for each in kept.glob("usr/lib/*/*.so*")}
    return program, {"LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries))}


def _run(command: Sequence[str], variables: Mapping[str, str], user: str | None) -> None:
    subprocess.run(
        command,
        check=True,
        user=user,
        cwd="/",
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )


@contextlib.contextmanager
def _running(
    command: Sequence[str], variables: Mapping[str, str], port: int, user: str | None = None
) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        user=user,
        cwd="/",
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: _serves(port, process))
        yield
    finally:
        process.send_signal(signal.SIGINT)  # After SIGTERM PostgreSQL waits for its clients.
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _serves(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"{process.args!r} has ended with {process.returncode}"
    return listens(port)


def listens(port: int) -> bool:
    """Say whether somebody listens on a port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
