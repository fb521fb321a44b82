"""
The names of threads.

A site is named after what its threads are for. That is the first function of the application that
runs in it, from the outside inwards: the handler of a request rather than the server that calls
it. A library's thread, however, calls the application now and then, and would be named after
another function at each look. So a function names it only if it was on the stack in two
consecutive censuses, or in the first one that saw the thread. A worker of a pool is named after
its job at once, and after its pool while it has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from otel_leaks.census.jobs import ANYIO_RUNS, RUNNERS
from otel_leaks.census.source import Look
from otel_leaks.census.thread_places import Named, Shape, Thread
from otel_leaks.libraries import is_own_module
from otel_leaks.model import Pool, Stack
from otel_leaks.runtime.code import CodeNames, Place
from otel_leaks.runtime.executors import has_job_in_anyio
from otel_leaks.runtime.frames import Stand, modules_of
from otel_leaks.runtime.glimpse import name_of_type
from otel_leaks.runtime.threads import Row, owner_of, target_of, timer_function

__all__ = ["ThreadNames", "functions_of"]


class ThreadNames:
    """Names threads by their stacks in this census and in the last one."""

    def __init__(self) -> None:
        self._codes = CodeNames()
        self.forget()

    def forget(self) -> None:
        """Forget all threads."""
        # By serial: the function of the application on the stack of a library's thread, empty if
        # there is none; and the name that the thread has without one.
        self._stood: dict[int, str] = {}
        self._standing: dict[int, str] = {}
        """The same in the census in progress."""
        self._labels: dict[int, str | None] = {}

    def begin(self) -> None:
        """Begin a census."""
        self._standing = {}

    def keep(self) -> None:
        """Keep the functions of this census's threads until the next one."""
        self._stood = self._standing
        self._labels = {
            serial: label for serial, label in self._labels.items() if serial in self._stood
        }

    def shape(self, row: Row, stand: Stand) -> Shape:
        """Return the shape of a thread's stack."""
        if any(self._codes.known(code) is None for code, *_ in stand):
            for code, module in modules_of(row.ident or 0):
                self._codes.name(code, module)
        return Shape(stand, [self._codes.name(code) for code, *_ in reversed(stand)])

    def stack(self, own: Iterable[Place]) -> Stack:
        """Return frames in the form of a sample's."""
        return tuple(self._codes.frame(*each) for each in own)

    def name(self, thread: Thread, shape: Shape, pool: Pool | None, look: Look) -> Named:
        """Return the name of a thread, a worker of *pool* if that is given."""
        if shape.runner in RUNNERS:
            is_idle = shape.runner == ANYIO_RUNS and not has_job_in_anyio(thread.row.ref)
            if shape.job is None or is_idle:
                label = f"pool {pool.name}" if pool is not None else None
                return Named(shape.begins, label, idle=True)
            return Named(shape.job if shape.own is None else shape.own)
        serial = thread.known.serial
        function = shape.names[shape.own].function if shape.own is not None else ""
        before = self._stood.get(serial, function)
        self._standing[serial] = function
        if shape.own is not None and function == before:
            return Named(shape.own)
        return Named(shape.begins, self._label(thread, look))

    def _label(self, thread: Thread, look: Look) -> str | None:
        """Return the name of a thread with no function of the application on its stack."""
        serial = thread.known.serial
        if serial not in self._labels:
            self._labels[serial] = look.guard.ask("thread", partial(_label, thread.row), None)
        return self._labels[serial]


def functions_of(row: Row, shape: Shape, named: Named) -> tuple[str, ...]:
    """Return the functions for the fingerprint of threads with the same stack and name."""
    label = (named.label,) if named.label is not None else ()
    if named.idle:
        # Its inner frames only fetch the next job.
        return (*label, shape.runner)
    functions = tuple(name.function for name in shape.names[named.first :])
    if functions:
        return (*label, *functions[len(label) :])
    runs = target_of(row.ref, row.kind)
    # A waiting timer has only functions of threading on its stack.
    return (*label, runs) if runs.startswith("threading.") else label or (runs,)


def _label(row: Row) -> str | None:
    """
    Return the name of a thread that runs only a library's code.

    That is the function that a timer will call; or the library's method that it runs, qualified
    with the application's class if it runs on an object of one.
    """
    function = timer_function(row.ref, row.kind)
    if function is not None:
        return function
    owner = owner_of(row.ref, row.kind)
    module = type.__getattribute__(owner, "__module__")
    if type(module) is not str or not is_own_module(module):
        return None
    return f"{name_of_type(owner)}.{target_of(row.ref, row.kind).rpartition('.')[2]}"
