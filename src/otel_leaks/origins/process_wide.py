"""
What libraries keep for the life of the process: an executor, a monitor, cached workers.

No test can end such an object, and the first test to use the library would be blamed for it. The
decision is by rule, not by name: a library's code created the object, and either the same library
references it from a global, a class, a cache or a thread-local, or the object was created during
an import or in a hook of pytest. A non-daemon thread is never meant to live that long: the process
would not end. An object that runs a function of the application belongs to the application,
whatever references it.

A task that nothing references, created by a library from a function without arguments, does no
work for the application: it lives as long as its loop. That holds for one such task on each loop.

A registry of every object ever created references leaks as well. So a library that creates another
object at the same place while it still references an earlier one does not reuse them: they pile
up, and are leaks. A cache of workers does not reference the workers that it has handed out. A
worker that is done again when another one is created may have run since the last look, so one
such case proves nothing; all of them being done, three times, does.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from otel_leaks.libraries import is_library, is_python
from otel_leaks.origins.makers import Maker
from otel_leaks.origins.runs import runs_application
from otel_leaks.runtime.frames import Stand, stacks_of
from otel_leaks.runtime.heap import has_holder, held_by_package
from otel_leaks.runtime.names import kept
from otel_leaks.runtime.switches import switches_of

if TYPE_CHECKING:
    from otel_leaks.model import Kind, Origin
    from otel_leaks.origins.notes import Note, Ref
    from otel_leaks.origins.scopes import Scope

__all__ = ["Line", "ProcessWide", "current_loop", "has_workers", "is_open", "line_of"]

BUDGET_S = 0.25
"""CPU time for the search of one look."""
BUDGET_OF_CREATION_S = 0.05
"""CPU time for the search when another object is created at the same place."""
SEARCHES_OF_SITE = 4
"""Searches of one place when another object is created there, in the life of a process."""
SUSPICIONS = 3
"""Times that all earlier ones may by chance have been done just as another one was created."""
MOST_REFS = 8
"""Earlier objects that are looked at when another one is created at the same place."""
MISSES_OF_SITE = 5
"""Looks in which the library referenced nothing it had created there, before searches stop."""

Line = tuple[str, str, int]
"""A function, its file and the line number."""

_Key = tuple[str, str, str, int]


class _Site:
    """A place in a library at which objects of one kind are created."""

    __slots__ = (
        "is_for_loops",
        "misses",
        "piles_up",
        "refs",
        "searches",
        "slept",
        "suspicions",
    )

    def __init__(self) -> None:
        self.is_for_loops = False
        """Whether it creates tasks that belong to their loop alone."""
        self.refs: list[Ref] = []
        self.slept: dict[int, int | None] = {}
        """How often each of its threads had been switched out at the last look, by its key."""
        self.piles_up = False
        self.suspicions = 0
        """How often its objects seemed to pile up, but may have run since the last look."""
        self.searches = 0
        self.misses = 0

    def have_slept(self) -> bool:
        """Return whether at least one of its threads was looked at and none has run since."""
        counts = [
            (count, switches_of(ref()))
            for ref in self.refs[:MOST_REFS]
            if (count := self.slept.get(ref.key)) is not None
        ]
        return bool(counts) and all(before == now for before, now in counts)


class ProcessWide:
    """Decides which objects that libraries created belong to the process."""

    def __init__(self) -> None:
        self._sites: dict[_Key, _Site] = {}
        self._kept: dict[int, tuple[Note, Maker]] = {}
        self._on_loop: Counter[tuple[Any, ...]] = Counter()
        self._of_policy: set[int] = set()
        """Loops that were the event loop policy's own, by the key of their notes."""

    def clear(self) -> None:
        """Forget everything."""
        self._sites.clear()
        self._kept.clear()
        self._of_policy.clear()

    def created(self, note: Note) -> None:
        """Record what a library creates, and check whether such objects pile up."""
        maker = note.maker
        # Generators are very numerous, and are not workers that a cache hands out: they are counted
        # when they are looked for.
        if maker is None or maker.occasion or note.kind == "async_generator":
            return
        if _is_worker(note.ref()):
            return
        site = self._sites.setdefault(_key(note, maker), _Site())
        site.refs = [ref for ref in site.refs if is_open(note.kind, ref())]
        if site.refs and not site.piles_up and site.searches < SEARCHES_OF_SITE:
            site.searches += 1
            refs = site.refs[:MOST_REFS]
            stood = _stands(refs)
            held = _are_held(refs, note.kind, maker)
            # A cached worker that becomes idle meanwhile was busy when another one was needed.
            if any(held) and _stands(refs) == stood:
                if note.kind != "thread" or site.have_slept():
                    site.piles_up = True
                elif all(held):
                    site.suspicions += 1
                    site.piles_up = site.suspicions >= SUSPICIONS
        site.refs.append(note.ref)

    def settle(self, notes: Iterable[Note], *, again: bool = False) -> list[Note]:
        """
        Return the notes in *notes* whose objects belong to the process.

        Args:
            notes: On what was created.
            again: Whether the same objects were asked about before.
        """
        found: list[Note] = []
        searched: list[tuple[Note, Maker, Any]] = []
        notes = list(notes)
        self._count_on_loops(notes)
        for note in notes:
            obj = note.ref()
            maker = note.maker or _maker_of_task(note)
            if obj is None or maker is None or _is_worker(obj) or _keeps_process(obj):
                continue
            is_policys = note.kind == "event_loop" and obj is current_loop()
            if is_policys:
                self._of_policy.add(note.ref.key)
            if (
                maker.occasion
                or is_policys
                or self._is_of_kept_thread(note, maker, found)
                or (not again and self._is_for_its_loop(note, maker, obj))
            ):
                found.append(note)
            elif not runs_application(note.kind, obj):
                searched.append((note, maker, obj))
        found += self._search(searched, again=again)
        for note in found:
            maker = note.maker or _maker_of_task(note)
            if maker is not None:
                self._kept[note.ref.key] = (note, maker)
                if note.kind == "thread":
                    site = self._sites.setdefault(_key(note, maker), _Site())
                    site.slept[note.ref.key] = switches_of(note.ref())
        return found

    def _is_of_kept_thread(self, note: Note, maker: Maker, found: list[Note]) -> bool:
        """Return whether a thread created it that belongs to the process and the same library."""
        thread = threading._active.get(note.thread)  # type: ignore[attr-defined]
        its = next(
            (
                each
                for each in (*found, *(kept for kept, _ in self._kept.values()))
                if thread is not None and each.ref() is thread
            ),
            None,
        )
        return (
            its is not None
            and its.maker is not None
            and not (set(its.maker.packages).isdisjoint(maker.packages))
        )

    def _count_on_loops(self, notes: Iterable[Note]) -> None:
        """Count the tasks of each place on each loop; a library that keeps one has only one."""
        tasks = {note.ref.key: note for note in notes if note.kind == "asyncio_task"}
        tasks.update({key: n for key, (n, _) in self._kept.items() if n.kind == "asyncio_task"})
        self._on_loop = Counter(
            _loop_key(note, maker, task)
            for note in tasks.values()
            if (maker := _maker_of_task(note)) is not None
            and is_open("asyncio_task", task := note.ref())
        )

    def _is_for_its_loop(self, note: Note, maker: Maker, obj: Any) -> bool:
        """Return whether a task is referenced by nothing, and has no arguments to work on."""
        if note.kind != "asyncio_task" or self._on_loop[_loop_key(note, maker, obj)] > 1:
            return False
        site = self._sites.setdefault(_key(note, maker), _Site())
        # Once, because this searches the whole heap.
        if not site.is_for_loops and site.misses < MISSES_OF_SITE and _takes_nothing(obj):
            site.is_for_loops = not has_holder(obj)
            site.misses += not site.is_for_loops
        return site.is_for_loops

    def _search(
        self, searched: list[tuple[Note, Maker, Any]], *, again: bool = False
    ) -> list[Note]:
        wanted: dict[str, dict[int, tuple[Note, Any]]] = {}
        for note, maker, obj in searched:
            site = self._sites.setdefault(_key(note, maker), _Site())
            if site.piles_up or site.misses >= MISSES_OF_SITE:
                continue
            if note.kind == "asyncio_task" and self._on_loop[_loop_key(note, maker, obj)] > 1:
                continue
            site.misses += not again
            for anchor in _anchors(note.kind, obj):
                for package in maker.packages:
                    wanted.setdefault(package, {})[id(anchor)] = (note, anchor)
        found: dict[int, Note] = {}
        for package, anchors in wanted.items():
            for key in held_by_package(package, anchors, budget_s=BUDGET_S):
                note = anchors[key][0]
                found[note.ref.key] = note
        self._leave_crowds(found)
        for note, maker, _ in searched:
            if note.ref.key in found:
                self._sites[_key(note, maker)].misses = 0
        return list(found.values())

    def _leave_crowds(self, found: dict[int, Note]) -> None:
        """Remove generators of which a library has several from one place: they pile up."""
        every = {**found, **{key: note for key, (note, _) in self._kept.items()}}
        open_ones = [
            (key, _key(note, note.maker))
            for key, note in every.items()
            if note.kind == "async_generator" and note.maker and is_open(note.kind, note.ref())
        ]
        crowds = {place for place, n in Counter(place for _, place in open_ones).items() if n > 1}
        for key, place in open_ones:
            if place in crowds:
                self._sites.setdefault(place, _Site()).piles_up = True
                found.pop(key, None)

    def revoked(self) -> list[Note]:
        """Return what was attributed to the process, but piles up or is no longer referenced."""
        again = [
            (note, maker, obj)
            for note, maker in self._kept.values()
            if not maker.occasion and is_open(note.kind, obj := note.ref())
        ]
        self._count_on_loops(note for note, *_ in again)
        held = {note.ref.key for note in self._search(again)}
        held.update(n.ref.key for n, maker, obj in again if self._is_for_its_loop(n, maker, obj))
        # A loop that the policy has released since, as asyncio.run() makes it do, still belongs to
        # no scope; several of them pile up.
        of_policy = [(note, maker) for note, maker, _ in again if note.ref.key in self._of_policy]
        places = Counter(_key(note, maker) for note, maker in of_policy)
        held.update(note.ref.key for note, maker in of_policy if places[_key(note, maker)] == 1)
        revoked = [note for note, *_ in again if note.ref.key not in held]
        for note in revoked:
            del self._kept[note.ref.key]
        return revoked

    def released(self, scope: Scope, lines: Collection[Line]) -> list[Note]:
        """Return what is kept but was created in *scope* by a line that led to a leak as well."""
        released = [
            note
            for note, maker in self._kept.values()
            if not maker.occasion and line_of(note.origin) in lines and scope.holds(note.scope)
        ]
        for note in released:
            del self._kept[note.ref.key]
        return released

    def lines(self) -> list[str]:
        """Return a description of what is kept and alive, one line for each place."""
        counts = Counter(
            (maker.packages[0], note.kind, maker.function)
            for note, maker in self._kept.values()
            if maker.occasion != "policy"
            and (note.kind != "thread_pool" or has_workers(note.ref()))
            and is_open(note.kind, note.ref())
        )
        return [
            f"{package} keeps {count} {kind.replace('_', ' ')}{'s' if count > 1 else ''} for the "
            f"life of the process, created by {function}"
            for (package, kind, function), count in sorted(counts.items())
        ]


def current_loop() -> Any:
    """Return the policy's loop of the calling thread, None if there is none; creates no loop."""
    events = sys.modules.get("asyncio.events")
    policy = getattr(events, "_event_loop_policy", None)
    # Private, the same on 3.10 to 3.15: of asyncio's own policies and their subclasses,
    # https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/events.py#L686
    local = kept(policy, "_local") if policy is not None else None
    return getattr(local, "_loop", None) if isinstance(local, threading.local) else None


def has_workers(pool: Any) -> bool:
    """Return whether a pool ever started a worker; if not, there is nothing to shut down."""
    # Private, the same on 3.10 to 3.15: of thread pools and of process pools.
    return bool(getattr(pool, "_threads", True) and getattr(pool, "_processes", True))


def _key(note: Note, maker: Maker) -> _Key:
    return (note.kind, maker.function, maker.file, maker.line)


def _loop_key(note: Note, maker: Maker, obj: Any) -> tuple[Any, ...]:
    loop = obj.get_loop() if note.kind == "asyncio_task" else None
    return (*_key(note, maker), id(loop))


def _maker_of_task(note: Note) -> Maker | None:
    """Return the library that created a task; only a task's origin is noted."""
    if note.kind != "asyncio_task":
        return None
    library = getattr(note.origin, "library", None)
    where = library or note.origin
    if not where.file or not is_library(where.file) or is_python(where.file):
        return None
    package = where.function.partition(".")[0]
    return Maker((package,), where.function, where.file, where.line, "")


def line_of(origin: Origin) -> Line:
    """Return the line of an origin."""
    return (origin.function, origin.file, origin.line)


def _takes_nothing(task: Any) -> bool:
    """Return whether a task runs a function of a library's module that takes no arguments."""
    # Not a task of one of the application's classes.
    coro = task.get_coro() if type(task).__module__ in {"_asyncio", "asyncio.tasks"} else None
    if type(coro) is not CoroutineType:
        return False
    code = coro.cr_code
    return (
        not (code.co_argcount or code.co_kwonlyargcount or code.co_freevars)
        and not code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
        and is_library(code.co_filename)
        and not is_python(code.co_filename)
    )


def _are_held(refs: list[Ref], kind: Kind, maker: Maker) -> list[bool]:
    """Return for each whether the library that created it references it."""
    anchors = [_anchors(kind, ref()) for ref in refs]
    ids = {id(anchor) for each in anchors for anchor in each}
    held: set[int] = set()
    for package in maker.packages:
        held |= held_by_package(package, ids - held, budget_s=BUDGET_OF_CREATION_S)
    return [any(id(anchor) in held for anchor in each) for each in anchors]


def _stands(refs: list[Ref]) -> list[Stand]:
    """Return the stacks of those that are threads."""
    threads = [obj for ref in refs if isinstance(obj := ref(), threading.Thread)]
    return stacks_of([kept(each, "_ident") or 0 for each in threads])


def _is_worker(obj: Any) -> bool:
    """Return whether a thread is a pool's worker, which belongs to its pool."""
    worker = getattr(sys.modules.get("concurrent.futures.thread"), "_worker", None)
    return worker is not None and kept(obj, "_target") is worker


def _keeps_process(obj: Any) -> bool:
    """Return whether it is a thread that would keep the process from ending."""
    return isinstance(obj, threading.Thread) and kept(obj, "_daemonic") is False


def _anchors(kind: Kind, obj: Any) -> list[Any]:
    """Return what a library may reference: the object, or what it works for."""
    if kind == "thread":
        works_for = getattr(kept(obj, "_target"), "__self__", None)
        return [obj] if works_for is None else [obj, works_for]
    if kind == "child_process":
        ref = getattr(obj, "_popen", None)  # A Child's is weak, that of multiprocessing is not.
        popen = ref() if isinstance(ref, weakref.ref) else None
        return [obj] if popen is None else [obj, popen]
    return [obj]


def is_open(kind: Kind, obj: Any) -> bool:
    """Return whether nobody has ended an object."""
    if obj is None:
        return False
    try:
        return bool(_OPEN.get(kind, bool)(obj))
    except Exception:  # An object of the application, or a double.
        return False


def _is_child_open(child: Any) -> bool:
    ended = getattr(child, "is_reaped", None)
    return not ended() if ended is not None else child.exitcode is None


_OPEN: Mapping[Kind, Callable[[Any], object]] = {
    "thread": lambda thread: thread.is_alive(),
    "thread_pool": lambda pool: not (kept(pool, "_shutdown") or kept(pool, "_shutdown_thread")),
    "event_loop": lambda loop: not loop.is_closed(),
    "asyncio_task": lambda task: not task.done(),
    "work_item": lambda future: not future.done(),
    "async_generator": lambda generator: generator.ag_frame is not None,
    "child_process": _is_child_open,
}
