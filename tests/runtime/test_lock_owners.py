from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from otel_leaks.census import CensusTaker
from otel_leaks.ignores import Ignores
from otel_leaks.report.hints import hint
from otel_leaks.runtime.bytecode.lock_owners import waits_for_dead
from otel_leaks.runtime.frames import CAN_READ_LOCALS, stacks_of

in_module: Any = None

pytestmark = pytest.mark.allow_leaks(reason="what waits for a lock of a dead thread never ends")


class Holder:
    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.inner = self


def with_local(holder: Holder) -> None:
    lock = holder.lock
    with lock:
        pass


def with_attribute(holder: Holder) -> None:
    with holder.lock:
        pass


def with_two_attributes(holder: Holder) -> None:
    with holder.inner.lock:
        pass


def with_global(_: Holder) -> None:
    with in_module:
        pass


def with_closure(holder: Holder) -> None:
    lock = holder.lock

    def inner() -> None:
        with lock:
            pass

    inner()


def with_acquire(holder: Holder) -> None:
    holder.lock.acquire()
    holder.lock.release()


def with_two(holder: Holder) -> None:
    with nullcontext(), holder.lock:
        pass


WAYS = [
    *(with_local, with_attribute, with_two_attributes, with_global, with_closure, with_acquire),
    with_two,
]


class Owned:
    """A lock whose owner lives until it is told to end, which it does without releasing."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._over = threading.Event()
        self._has = threading.Event()
        self._owner = threading.Thread(target=self._own)
        self._owner.start()
        assert self._has.wait(20)

    def _own(self) -> None:
        self.lock.acquire()
        self._has.set()
        self._over.wait()

    def end(self) -> None:
        self._over.set()
        self._owner.join(20)


def waiting(lock: Any, way: Callable[[Holder], None]) -> threading.Thread:
    """Start a thread that waits for *lock*."""
    global in_module
    in_module = lock
    thread = threading.Thread(target=way, args=(Holder(lock),), name="stuck-waiting", daemon=True)
    thread.start()
    return thread


def stands(thread: threading.Thread) -> bool:
    assert thread.ident is not None
    (stand,) = stacks_of((thread.ident,))
    return bool(stand) and waits_for_dead(thread.ident, *stand[0][:2])


def comes_to_stand(thread: threading.Thread) -> bool:
    """Look again and again: that it waits in C nobody says."""
    for _ in range(20_000):
        if stands(thread):
            return True
        thread.join(0.001)
    return False


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_lock_whose_owner_has_ended_is_known(way: Callable[[Holder], None]) -> None:
    if way is not with_global and not CAN_READ_LOCALS:
        pytest.skip("before 3.13 reading one variable of a running function keeps all alive")
    owned = Owned()
    # Begun before the owner ends: a later thread may get its ident, and so its lock.
    thread = waiting(owned.lock, way)
    assert not stands(thread)
    owned.end()
    assert comes_to_stand(thread)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_lock_whose_owner_lives_is_no_such_lock(way: Callable[[Holder], None]) -> None:
    lock = threading.RLock()
    with lock:
        thread = waiting(lock, way)
        thread.join(0.05)
        assert not stands(thread)
    thread.join(20)


def test_a_lock_without_an_owner_is_no_such_lock() -> None:
    lock = threading.Lock()
    with lock:
        thread = waiting(lock, with_attribute)
        thread.join(0.05)
        assert not stands(thread)
    thread.join(20)


class Other:
    """Waits elsewhere, though it refers to a lock of a dead thread."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.free = threading.Lock()
        self.free.acquire()

    def wait(self, lock: Any) -> None:
        with self.free:
            lock.acquire()


def test_a_lock_that_is_only_referred_to_is_no_such_lock() -> None:
    owned = Owned()
    other = Other(owned.lock)
    thread = threading.Thread(target=other.wait, args=(other.lock,), daemon=True)
    thread.start()
    owned.end()
    thread.join(0.05)
    assert not stands(thread)


def with_a_census(holder: Holder) -> None:
    with holder.lock:
        pass


@pytest.mark.skipif(not CAN_READ_LOCALS, reason="before 3.13 the lock is in a variable")
def test_a_census_says_so_in_the_hint() -> None:
    owned = Owned()
    thread = waiting(owned.lock, with_a_census)
    owned.end()
    assert comes_to_stand(thread)
    taker = CensusTaker(ignores=Ignores(()), max_sites=50)
    threads = taker.take().populations[0]
    told = [hint(site) for site in threads.sites if site.function.endswith("with_a_census")]
    assert [str(each)[:29] for each in told] == ["a lock held by a dead thread:"]
