"""
Pythons that are too new to be installed, from Debian sid in a folder of their own.

    python tests/support/sid.py root              # makes it where needed, prints the folder
    python tests/support/sid.py run /tmp python3.14 -VV

The folder is made by debootstrap, which takes about a minute and root, and is kept
under the cache. It is named after the month it was made in: bug fix releases come every
other month, so that is as old as a Python in it may be, and a machine pays the minute
twelve times a year at most. When a new one can't be made (no network on the first day
of a month), the old one goes on serving.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHONS = ("3.14", "3.15")
"""Versions to put into the folder; one that sid no longer has is left out."""
RECIPE = 1
"""Raised by whoever changes what is put into the folder, so that it is made anew."""

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-leaks"

_PASSED_ON = ("CI", "PYTEST_ADDOPTS", "TERM", "COLUMNS")


class SidUnavailableError(Exception):
    """Says why there is no sid here, and how to get one."""


def root() -> Path:
    """
    Return the folder with sid in it; make it when there is none of this month.

    Raises:
        SidUnavailableError: It can't be made here.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / "sid.lock"):
        name = f"sid-{time.strftime('%Y-%m', time.gmtime())}-{platform.machine()}-{RECIPE}"
        wanted = CACHE / name
        if wanted.is_dir():
            return wanted
        older = sorted(CACHE.glob(f"sid-????-??-{platform.machine()}-{RECIPE}"))
        try:
            _need_root()
            _need_debootstrap()
            _make(wanted)
        except SidUnavailableError as error:
            if not older or os.geteuid() != 0:
                raise
            print(f"sid: {older[-1].name} goes on serving: {error}", file=sys.stderr)
            return older[-1]
        for each in CACHE.glob(f"sid-????-??-{platform.machine()}-*"):
            if each != wanted:
                _remove(each)
        return wanted


def run(folder: Path, cwd: str, argv: list[str]) -> None:
    """
    Become *argv* inside *folder*; does not return.

    Where the kernel allows it, in namespaces of its own: /proc and /dev are mounted for
    nobody else, and are gone with the last process, however that ends. Killing the
    process that this one becomes kills everything inside.
    """
    # A shell stands between, because the first process of a namespace ignores signals
    # that it does not handle, which a program under test may want to die of.
    inside = ["chroot", str(folder), "/bin/sh", "-c", 'cd "$0" && "$@"; exit $?', cwd, *argv]
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0:
        mounts = 'mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; exec "$@"'
        inside = [*own, "/bin/sh", "-c", mounts, str(folder), *inside]
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    env |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    # The commands stand in the machine's own PATH, what they start has the one above.
    program = shutil.which(inside[0]) or inside[0]
    sys.stdout.flush()
    os.execve(program, inside, env)


def _need_root() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise SidUnavailableError("only root on Linux can chroot into a Debian sid")


def _need_debootstrap() -> None:
    if shutil.which("debootstrap"):
        return
    if not shutil.which("apt-get"):
        raise SidUnavailableError("there is no debootstrap; install it")
    print("sid: apt-get install debootstrap", file=sys.stderr)
    for command in (["update", "-q"], ["install", "-y", "-q", "debootstrap"]):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            ["apt-get", *command], env=env, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise SidUnavailableError(f"apt-get install debootstrap: {_last_line(done.stderr)}")


def _make(wanted: Path) -> None:
    for stale in CACHE.glob("sid-making-*"):  # Of a run that was killed; the lock is ours.
        _remove(stale)
    making = Path(tempfile.mkdtemp(prefix="sid-making-", dir=CACHE))
    making.chmod(0o755)
    include = [name for each in PYTHONS for name in (f"python{each}", f"python{each}-venv")]
    try:
        print(f"sid: debootstrap {wanted}, about a minute", file=sys.stderr)
        while (done := _debootstrap(making, include)).returncode != 0:
            missing = re.search(r"Couldn't find these debs: (.*)", done.stdout)
            gone = set(missing[1].split()) if missing is not None else set()
            if not gone & set(include) or gone >= set(include):
                raise SidUnavailableError(f"debootstrap: {_last_line(done.stdout)}")
            include = [name for name in include if name not in gone]
        hosts = making / "etc/hosts"
        if not hosts.exists():
            hosts.write_text("127.0.0.1 localhost\n::1 localhost\n", encoding="ascii")
        shutil.rmtree(making / "var/cache/apt", ignore_errors=True)
        shutil.rmtree(making / "var/lib/apt/lists", ignore_errors=True)
        making.rename(wanted)
    finally:
        if making.is_dir():
            _remove(making)


def _debootstrap(folder: Path, include: list[str]) -> subprocess.CompletedProcess[str]:
    packages = f"--include={','.join(include)}"
    return subprocess.run(
        ["debootstrap", "--variant=minbase", packages, "sid", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _remove(folder: Path) -> None:
    """Remove a folder, unless something is mounted below: that is not ours to delete."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    if f" {folder}/" not in mounts:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")


def main(argv: list[str]) -> int:
    if argv[:1] not in (["root"], ["run"]) or (argv[0] == "run" and len(argv) < 3):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        folder = root()
        if argv[0] == "run":
            run(folder, argv[1], argv[2:])
    except SidUnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
