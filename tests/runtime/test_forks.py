"""The locks of the package in forked children."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_leaks
from otel_leaks.runtime import forks

ROOT = Path(otel_leaks.__file__).parent
PRIMITIVES = {
    *("Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier"),
    "allocate_lock",
}
PROGRAMS = {("testing", "selftest.py"), ("demo",), ("viewer",), ("cli",)}
"""What leaks on purpose, or runs in a process of its own, which never forks."""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: Linux or macOS")


def run(program: str) -> list[str]:
    """Run a program of its own: the parent of a fork should have no threads of pytest's."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def locks_made_in(source: str) -> Iterator[int]:
    """Yield the lines in which a lock or an event is made."""
    tree = ast.parse(source)
    # type(threading.RLock()) asks for the type of one; nobody holds that.
    asked = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type"
        for argument in node.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"threading", "_thread"}:
            if PRIMITIVES & {alias.name for alias in node.names}:
                yield node.lineno
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in {"threading", "_thread"}
            and node.attr in PRIMITIVES
        ):
            calls = [
                each
                for each in ast.walk(tree)
                if isinstance(each, ast.Call) and each.func is node and id(each) not in asked
            ]
            if calls:
                yield node.lineno


def test_every_lock_of_the_package_is_made_by_the_owner_of_all() -> None:
    made = {
        str(path.relative_to(ROOT)): lines
        for path in sorted(ROOT.rglob("*.py"))
        if not PROGRAMS & {(parts := path.relative_to(ROOT).parts), parts[:1]}
        and (lines := list(locks_made_in(path.read_text(encoding="utf-8"))))
    }
    assert set(made) == {str(Path("runtime", "forks.py"))}


def test_the_search_for_locks_finds_those_that_are_made_and_no_others() -> None:
    source = """
from threading import Event, Thread
import threading, _thread
kind = type(threading.RLock())
lock = threading.Lock()
field(default_factory=lambda: _thread.allocate_lock())
def f(lock: threading.Lock): pass
"""
    assert sorted(locks_made_in(source)) == [2, 5, 6]


@needs_fork
def test_a_lock_that_another_thread_holds_at_a_fork_is_free_in_the_child() -> None:
    told = run("""
        import os, threading
        from otel_leaks.runtime import forks

        lock, held = forks.Lock(), threading.Event()

        def hold():
            with lock:
                held.set()
                threading.Event().wait()

        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(20)
        if os.fork() == 0:
            print("child", lock.acquire(20), flush=True)
            os._exit(0)
        os.wait()
        print("parent", lock.acquire(0.01), flush=True)
    """)
    assert told == ["child True", "parent False"]


@needs_fork
def test_a_lock_that_the_forking_thread_holds_stays_its_own_in_the_child() -> None:
    told = run("""
        import os, threading
        from otel_leaks.runtime import forks

        lock = forks.Lock()

        def taken_by_another():
            got = []
            thread = threading.Thread(target=lambda: got.append(lock.acquire(0.01)))
            thread.start()
            thread.join()
            return got[0]

        with lock:
            pid = os.fork()
            inside = taken_by_another()
        os.write(1, b"%r %r\\n" % (inside, taken_by_another()))
        if pid == 0:
            os._exit(0)
        os.wait()
    """)
    assert told == ["False True"] * 2


@needs_fork
def test_a_fork_while_other_threads_take_all_locks_all_the_time_hangs_nobody() -> None:
    told = run("""
        import os, threading
        from otel_leaks.runtime import forks

        locks = [forks.Lock() for _ in range(3)]
        event = forks.event()
        done = False

        def churn():
            while not done:
                for lock in locks:
                    with lock, lock:
                        event.set()
                        event.clear()

        for _ in range(3):
            threading.Thread(target=churn, daemon=True).start()
        for _ in range(50):
            if os.fork() == 0:
                for lock in locks:
                    assert lock.acquire(20)
                event.set()
                os._exit(0 if event.wait(20) else 1)
            assert os.wait()[1] == 0
        done = True
        print("all")
    """)
    assert told == ["all"]


@needs_fork
def test_what_a_hook_raises_goes_no_further_and_the_others_are_called() -> None:
    told = run("""
        import os
        from otel_leaks.runtime import forks

        def breaks():
            raise ValueError("ours")

        def says(word):
            return lambda: os.write(1, word.encode() + b"\\n")

        forks.subscribe(breaks, breaks, breaks)
        forks.subscribe(says("before"), says("in the parent"), says("in the child"))
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    """)
    assert sorted(told) == ["before", "in the child", "in the parent"]


@needs_fork
def test_the_children_of_subprocess_are_known_to_become_another_program() -> None:
    told = run("""
        import os, subprocess
        from otel_leaks.runtime import forks

        forks.watch()
        says = lambda: os.write(1, b"%r\\n" % forks.only_execs())
        subprocess.run(["true"], preexec_fn=says, check=True)
        if os.fork() == 0:
            says()
            os._exit(0)
        os.wait()
        says()
    """)
    assert told == ["True", "False", "False"]


@needs_fork
def test_a_child_that_python_did_not_see_is_announced_once() -> None:
    # As a server in C forks: no hook runs.
    told = run("""
        import ctypes, os, threading
        from otel_leaks.runtime import forks

        lock, held = forks.Lock(), threading.Event()

        def hold():
            with lock:
                held.set()
                threading.Event().wait()

        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(20)
        forks.subscribe(int, int, lambda: print("in the child", flush=True))
        print(forks.is_announced(), flush=True)
        # The GIL is held, unlike by ctypes.CDLL.
        if ctypes.PyDLL(None).fork() == 0:
            print(forks.is_announced(), lock.acquire(0.01), flush=True)
            forks.announce()
            forks.announce()
            print(forks.is_announced(), lock.acquire(20), flush=True)
            os._exit(0)
        os.wait()
        forks.announce()
    """)
    assert told == ["True", "False False", "in the child", "True True"]


def test_a_lock_is_reentrant_and_says_whether_it_was_taken_in_time() -> None:
    lock = forks.Lock()
    with lock, lock:
        taken: list[bool] = []
        thread = threading.Thread(target=lambda: taken.append(lock.acquire(0.01)))
        thread.start()
        thread.join(20)
    assert taken == [False]
    assert lock.acquire(0.01)
    lock.release()
