"""
uWSGI, which forks its workers without notifying Python, and without holding the GIL.

A thread that runs Python in the master at that moment owns the GIL in the worker forever,
and no hook of Python runs before the fork that could prevent it. Therefore nothing of ours may
run in the master, and a worker is noticed by other means:

- uWSGI calls ``uwsgi.post_fork_hook`` in each worker, mule and spooler, and without a
  master in the process itself, which is worker 1. There is only one hook, which
  ``uwsgidecorators`` and applications set as well, before or after us: each is called.
- It calls only the hook of the main interpreter. In another interpreter (``--mount`` twice),
  the first thread or the first garbage collection reveals the worker.

Serves uWSGI 2.0.20 to 2.0.31, on CPython 3.10 to 3.14.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, final

from otel_leaks.runtime import forks, native

__all__ = ["NOTICED_S", "Workers", "has_threads", "is_worker", "server"]

NOTICED_S = 1.0
"""Seconds from a worker's first garbage collection to its start, unless its hook came first."""

_HOOK = "post_fork_hook"


def server() -> ModuleType | None:
    """
    Return the module ``uwsgi`` of the server that this interpreter runs in, None elsewhere.

    While the interpreter starts, when ``opentelemetry-instrument`` runs, uWSGI has not created its
    module yet. It will use an existing one, so an empty one is created here.
    """
    found = sys.modules.get("uwsgi")
    if isinstance(found, ModuleType):
        # Not a stub of that name for use outside of uWSGI: the server's has functions in C.
        return found if type(found) is _Module or _is_of_server(found) else None
    if found is None and _is_embedded() and _has_symbol():
        made = _Module("uwsgi")
        sys.modules["uwsgi"] = made
        return made
    return None


def is_worker(uwsgi: ModuleType) -> bool:
    """Return whether this process was forked by the server: a worker or a mule."""
    for name in ("worker_id", "mule_id"):
        ask = getattr(uwsgi, name, None)
        if callable(ask) and ask() > 0:
            return True
    return False


def has_threads(uwsgi: ModuleType) -> bool:
    """Return whether Python's threads run here; before 2.0.31 an option must enable them."""
    return bool(getattr(uwsgi, "has_threads", True))


def _is_of_server(module: ModuleType) -> bool:
    return type(getattr(module, "worker_id", None)) is type(len)


def _is_embedded() -> bool:
    # These are the arguments of python itself; an interpreter embedded in a server has none.
    return not sys.orig_argv


def _has_symbol() -> bool:
    try:
        import ctypes

        return hasattr(ctypes.CDLL(None), "uwsgi_setup")
    except (ImportError, OSError, TypeError):
        return False


@final
class _Module(ModuleType):
    """The module ``uwsgi``, which keeps our hook when another one is set."""

    def __setattr__(self, name: str, value: Any) -> None:
        workers = vars(self).get("_otel_leaks")
        if name == _HOOK and workers is not None:
            value = workers.also(value)
        super().__setattr__(name, value)


@final
class Workers:
    """
    Calls *begin* in each worker when the worker starts, until it is closed.

    Args:
        uwsgi: The module that ``server`` returned.
        begin: Called once in each worker's process. Must not raise.
    """

    def __init__(self, uwsgi: ModuleType, begin: Callable[[], None]) -> None:
        self._uwsgi = uwsgi
        self._begin = begin
        self._begun_in: int | None = None
        self._made_in = os.getpid()
        self._noticed_in: int | None = None
        self._lock = forks.Lock()
        self._other: Any = None
        self._start: Any = None

    def open(self) -> None:
        """Start waiting for workers."""
        uwsgi = self._uwsgi
        hook = vars(uwsgi).get(_HOOK)
        if type(uwsgi) is not _Module:
            # Allowed for modules: https://docs.python.org/3/reference/datamodel.html#customizing-module-attribute-access
            uwsgi.__class__ = _Module
        vars(uwsgi)["_otel_leaks"] = self
        vars(uwsgi)[_HOOK] = self.also(hook)
        gc.callbacks.append(self._collects)

    def close(self) -> None:
        """Remove our hook, and restore that of others."""
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._collects)
        if vars(self._uwsgi).get("_otel_leaks") is self:
            del vars(self._uwsgi)["_otel_leaks"]
            if self._other is not None:
                vars(self._uwsgi)[_HOOK] = self._other
            else:
                vars(self._uwsgi).pop(_HOOK, None)

    def also(self, hook: Any) -> Callable[[], None]:
        """Return a hook that calls *hook* and then ``_begins``."""
        self._other = hook

        def post_fork_hook() -> None:
            try:
                if hook is not None:
                    hook()
            finally:
                self._begins()

        return post_fork_hook

    def _collects(self, phase: str, _: object) -> None:
        pid = os.getpid()
        if phase == "stop" and pid not in (self._made_in, self._begun_in, self._noticed_in):
            # This may run wherever memory is allocated, under any lock, even in fork hooks.
            # Another thread therefore starts the worker, long after those have run.
            self._noticed_in = pid
            with contextlib.suppress(Exception):
                native.start_new_thread(self._begins_late, ())

    def _begins_late(self) -> None:
        with contextlib.suppress(BaseException):  # No exception may leave a bare thread.
            native.sleep(NOTICED_S)
            self._begins()

    def _begins(self) -> None:
        with self._lock:
            is_due = self._begun_in != os.getpid()
            self._begun_in = os.getpid()
        if is_due and vars(self._uwsgi).get("_otel_leaks") is self:
            self._begin()
