"""
Finished tasks among the youngest objects of the process, where no registry has them.

The garbage collector keeps new objects in a list of their own, generation 0. Objects that survive
a collection of it are in generation 1 until some ten collections later. These lists contain what an
application keeps of its latest requests, even if no request lasts long enough to be seen pending.

``gc.get_objects(generation)`` copies such a list at once, in 8 ns an object. No other thread runs
meanwhile, which makes it safe (see ``glimpse``); therefore the length has to be known before, as
far as possible. ``gc.get_count()`` returns how many more objects were created than deleted since
the last collection, and how often generation 0 was collected since the last one of generation 1.

With the incremental collector of 3.14.0 to 3.14.4, generation 1 is empty. A build without the GIL
has no generations, and would copy the whole heap:
https://docs.python.org/3/library/gc.html#gc.get_objects.
"""

from __future__ import annotations

import gc
import sysconfig
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, compress, islice, tee
from operator import is_
from typing import Any

from otel_leaks.runtime.glimpse import drained
from otel_leaks.runtime.task_makes import below, class_in_c
from otel_leaks.runtime.tasks import TaskRef

__all__ = ["GENERATIONS", "YoungTasks"]

GENERATIONS: Sequence[int] = () if sysconfig.get_config_var("Py_GIL_DISABLED") else (0, 1)
"""The generations that can be read."""
MOST_COPIED = 25_000
"""Maximum number of objects of a generation that are copied at once: 0.2 ms. With CPython's own
thresholds, a generation rarely grows above that. It may if the application changes the thresholds,
turns the garbage collector off, or deletes as many old objects as it creates new ones."""
MOST_LOOKED_AT = 6000
"""Maximum number of objects of a generation that are examined, the newest: up to 0.5 ms if most are
tasks. Some are of the last census, and most are of finished requests."""
MOST_FOUND = 500
"""Maximum number of tasks of a generation that are returned, the newest."""
FIRST_REST = 8
MOST_REST = 512
"""Range of how often a generation is left out after it was unexpectedly large."""


class YoungTasks:
    """
    Finds the finished tasks in the young generations.

    Args:
        copy: Returns the objects of a generation.
        counts: Returns what each generation has counted since it was last collected.
    """

    def __init__(
        self,
        copy: Callable[[int], list[Any]] = gc.get_objects,
        counts: Callable[[], tuple[int, int, int]] = gc.get_count,
    ) -> None:
        self._copy = copy
        self._counts = counts
        self._rests = dict.fromkeys(GENERATIONS, 0)
        """The number of times that each is still to be left out."""
        self._waits = dict.fromkeys(GENERATIONS, 0)
        """The number of times that each was left out after it had last been too large."""

    def finished(self, generation: int) -> list[TaskRef]:
        """
        Return references to the finished tasks in a generation, the newest first.

        Tasks that finished in their first, eager step are left out: they have no coroutine.

        Args:
            generation: One of ``GENERATIONS``.

        Returns:
            References without a callback; none if the generation is too large.
        """
        task = class_in_c()
        if task is None or self._expected(generation) > MOST_COPIED:
            return []
        if self._rests[generation]:
            self._rests[generation] -= 1
            return []
        classes = frozenset(map(id, (task, *below(task))))
        copied: list[list[Any]] = []
        copy = partial(self._copy, generation)
        try:
            _, size, *refs, _ = drained(partial(_found, copy, copied, task, classes))
        finally:
            # After an error only. No bytecode ran in between, so no other thread did.
            for each in copied:
                each.clear()
        # If as many old objects are deleted as new ones are created, the count shows nothing.
        wait = self._waits[generation]
        wait = min(max(FIRST_REST, 2 * wait), MOST_REST) if size > MOST_COPIED else 0
        self._rests[generation] = self._waits[generation] = wait
        return refs

    def _expected(self, generation: int) -> int:
        created, collections, _ = self._counts()
        return created if generation == 0 else collections * gc.get_threshold()[0]


def _found(
    copy: Callable[[], list[Any]], copied: list[list[Any]], task: Any, classes: frozenset[int]
) -> Iterator[Any]:
    """
    Return an iterator over None, the number of objects, references to the tasks, and None.

    The iterators themselves are among the objects that are copied. So only tasks go through
    ``tee()``, which keeps what it is given, and at the end the copy is emptied: a circle of
    references would keep all of it alive.
    """
    one, two = (chain.from_iterable(map(reversed, iter(copied))) for _ in range(2))
    kinds = map(classes.__contains__, map(id, map(type, two)))
    three, four = tee(compress(islice(one, MOST_LOOKED_AT), kinds))
    # These methods are C's, also for a subclass that has others.
    five, six = tee(compress(three, map(task.done, four)))
    native = map(partial(is_, types.CoroutineType), map(type, map(task.get_coro, six)))
    refs = map(weakref.ref, compress(five, native))
    return chain(
        map(copied.append, islice(iter(copy, None), 1)),
        map(len, copied),
        islice(refs, MOST_FOUND),
        map(list.clear, copied),
    )
