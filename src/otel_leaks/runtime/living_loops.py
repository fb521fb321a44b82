"""
The event loops of the process, each known from its constructor on.

Which loops run in other threads nothing says before 3.14, so the making of loops is noted.
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
    # Looked up in sys.modules: where asyncio was not imported there are no loops.
    import asyncio

__all__ = ["LivingLoops"]


class LivingLoops:
    """
    The event loops of the process, held weakly.

    Loops that live when it is opened are found once through the garbage collector,
    later ones by a wrapper of the constructor of each loop class: one more call for
    each new loop, nothing for each task.
    """

    def __init__(self) -> None:
        # Reentrant: the garbage collector may run a finalizer in it that makes a loop.
        self._lock = forks.Lock()
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._searched: set[type] = set()
        self._opened = False
        self._closed = False

    def __iter__(self) -> Iterator[asyncio.AbstractEventLoop]:
        with self._lock:
            return iter(list(self._loops))

    def forked(self) -> None:
        """Start anew in a forked child: another thread may have held our lock."""
        self._lock.renew()
        _constructors.forked()

    def open(self) -> None:
        """Begin to note loops, and find those that there are."""
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
        """Wrap loop classes that appeared since, and find the loops they already have."""
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
        """Know a loop that was just made."""
        # In the application's constructor nothing may raise: a loop of somebody's own
        # that can't be referred to weakly, or hashed, is not known.
        with self._lock, contextlib.suppress(Exception):
            self._loops.add(loop)

    def forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask *loop* no more; asking one takes as long as there are tasks on all loops."""
        with self._lock:
            self._loops.discard(loop)


class _Constructors:
    """The wrapped constructors of loop classes: once, however many registries are open."""

    def __init__(self) -> None:
        self._lock = forks.Lock()
        self._listeners: tuple[LivingLoops, ...] = ()
        self._patches = Patches()
        self._wrapped: set[type] = set()

    def forked(self) -> None:
        self._lock.renew()

    def add(self, loops: LivingLoops) -> None:
        """Note each new loop in *loops*, too."""
        with self._lock:
            self._listeners = (*(each for each in self._listeners if each is not loops), loops)

    def remove(self, loops: LivingLoops) -> None:
        """Note no more in *loops*; restore the constructors when nobody listens."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each is not loops)
            if self._listeners:
                return
            self._patches.restore()
            self._wrapped.clear()

    def wrap(self, classes: list[type]) -> None:
        """Wrap those of *classes* that are not, as long as anybody listens."""
        with self._lock:
            for cls in classes:
                if self._listeners and cls not in self._wrapped:
                    # A class made in C can't be changed; its loops are found when they
                    # are there at the opening.
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
