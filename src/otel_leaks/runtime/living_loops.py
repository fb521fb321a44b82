"""
The event loops of the process, each registered by its constructor.

Before 3.14 nothing shows which loops run in other threads, so the creation of loops is recorded.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from otel_leaks.runtime import forks
from otel_leaks.runtime.heap import living
from otel_leaks.runtime.loops import loop_roots
from otel_leaks.runtime.patches import Patches

if TYPE_CHECKING:
    # Looked up in sys.modules at run time: if asyncio was not imported, there are no loops.
    import asyncio

__all__ = ["LivingLoops"]


class LivingLoops:
    """
    The event loops of the process, held weakly.

    Loops that exist when it is opened are found once through the garbage collector,
    later ones by a wrapper around the constructor of each loop class: one more call for
    each new loop, nothing for each task.
    """

    def __init__(self) -> None:
        # Reentrant: while it is held, the GC may run a finalizer that creates a loop.
        self._lock = forks.Lock()
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._searched: set[type] = set()
        self._opened = False
        self._closed = False

    def __iter__(self) -> Iterator[asyncio.AbstractEventLoop]:
        with self._lock:
            return iter(list(self._loops))

    def forked(self) -> None:
        """Start over in a forked child: another thread may have held our lock."""
        self._lock.renew()
        _constructors.forked()

    def open(self) -> None:
        """Start recording loops, and find the existing ones."""
        self._opened, self._closed = True, False
        _constructors.add(self)
        self.discover()

    def close(self) -> None:
        """Restore the constructors, and forget all loops."""
        self._opened, self._closed = False, True
        _constructors.remove(self)
        with self._lock:
            self._searched = set()
            self._loops = weakref.WeakSet()

    def discover(self) -> None:
        """Wrap loop classes that appeared since, and find their existing loops."""
        if self._closed:
            return
        new = [cls for cls in loop_roots() if cls not in self._searched]
        if not new:
            return
        if self._opened:
            _constructors.wrap(new)
            self._searched.update(new)
        for loop in living(*new):
            self.note(loop)

    def note(self, loop: asyncio.AbstractEventLoop) -> None:
        """Register a loop that was just created."""
        # Nothing may raise in the application's constructor: a custom loop that can't be
        # hashed or referenced weakly is left out.
        with self._lock, contextlib.suppress(Exception):
            self._loops.add(loop)

    def forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop asking *loop*: asking one takes time for the tasks of all loops."""
        with self._lock:
            self._loops.discard(loop)


class _Constructors:
    """The constructors of loop classes, wrapped once however many registries are open."""

    def __init__(self) -> None:
        self._lock = forks.Lock()
        self._listeners: tuple[LivingLoops, ...] = ()
        self._patches = Patches()
        self._wrapped: set[type] = set()

    def forked(self) -> None:
        self._lock.renew()

    def add(self, loops: LivingLoops) -> None:
        """Record each new loop in *loops* as well."""
        with self._lock:
            self._listeners = (*(each for each in self._listeners if each is not loops), loops)

    def remove(self, loops: LivingLoops) -> None:
        """Stop recording in *loops*; restore the constructors when no listener is left."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each is not loops)
            if self._listeners:
                return
            self._patches.restore()
            self._wrapped.clear()

    def wrap(self, classes: list[type]) -> None:
        """Wrap those of *classes* that are not wrapped yet, if there is any listener."""
        with self._lock:
            for cls in classes:
                if self._listeners and cls not in self._wrapped:
                    # A class implemented in C can't be changed; its loops are found only
                    # if they exist when this is opened.
                    with contextlib.suppress(TypeError):
                        self._wrap(cls)

    def _wrap(self, cls: type) -> None:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def init(*args: Any, **kwargs: Any) -> Any:
                made = original(*args, **kwargs)
                for loops in self._listeners if args else ():
                    loops.note(args[0])
                return made

            return init

        self._patches.wrap(cls, "__init__", make)
        self._wrapped.add(cls)


_constructors = _Constructors()
