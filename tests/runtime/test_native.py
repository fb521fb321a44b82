from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from otel_leaks.runtime import native

LIMIT_S = 30.0


def test_an_event_wakes_all_that_wait_and_stays_set() -> None:
    event, woken = native.Event(), [threading.Event() for _ in range(3)]

    def wait(woken: threading.Event) -> Callable[[], None]:
        return lambda: woken.set() if event.wait(LIMIT_S) else None

    threads = [native.Thread(wait(each), "waits") for each in woken]
    for each in threads:
        each.start()
    assert not any(each.is_set() for each in woken)
    event.set()
    event.set()
    for each in threads:
        each.join(LIMIT_S)
    assert all(each.is_set() for each in woken)
    assert (event.is_set(), event.wait(0), event.wait()) == (True, True, True)
    event.clear()
    assert (event.is_set(), event.wait(0)) == (False, False)


@pytest.mark.parametrize("is_set", [True, False])
def test_a_renewed_event_is_as_it_was(is_set: bool) -> None:
    event = native.Event()
    if is_set:
        event.set()
    event.renew()
    assert (event.is_set(), event.wait(0)) == (is_set, is_set)
    event.set()
    assert event.wait()


def test_an_event_that_nobody_sets_lets_go_after_the_time() -> None:
    event = native.Event()
    assert [event.wait(each) for each in (0, -1, 0.01)] == [False, False, False]


def test_a_thread_shows_its_name_and_ends() -> None:
    event, seen = native.Event(), []

    def work() -> None:
        seen.append((threading.current_thread().name, thread.is_current()))
        event.wait(LIMIT_S)
        raise SystemExit

    thread = native.Thread(work, "works")
    thread.start()
    assert (thread.is_alive(), thread.is_current()) == (True, False)
    event.set()
    thread.join(LIMIT_S)
    assert (seen, thread.is_alive()) == ([("works", True)], False)


PROGRAM = """
import sys, time

def patch():
    if {library!r} == "gevent":
        from gevent.monkey import patch_all
        patch_all()
    else:
        import eventlet
        eventlet.monkey_patch()

if {patched_first}:
    patch()
from otel_leaks.runtime import native
first = native.Event()
early = native.Thread(lambda: first.wait(60), "early")
early.start()
if not {patched_first}:
    patch()
import threading

turns = native.Event()
ran = []

def work():
    native.sleep(0)
    ran.append((threading.current_thread().name, native.get_ident()))
    turns.set()
    first.wait(60)

thread = native.Thread(work, "monitor")
thread.start()
# No greenlet gets its turn here: what sets the event is another thread of the system.
assert turns.wait(30)
assert native.is_replaced()
assert ran[0][0] == "monitor" and ran[0][1] != native.get_ident(), ran
lock = native.allocate_lock()
assert lock.acquire() and not lock.acquire(timeout=0.01)
first.set()
for each in (early, thread):
    each.join(30)
    assert not each.is_alive()
while any(each.name == "early" for each in threading.enumerate()):
    time.sleep(0.001)  # Its last line is behind its end.
print("done")
"""


@pytest.mark.parametrize("patched_first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_threads_are_real_where_a_library_replaced_them(library: str, patched_first: bool) -> None:
    # Not imported here: each later fork of this process would be warned of.
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"`pip install {library}` to run this")
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c"),
            textwrap.dedent(PROGRAM).format(library=library, patched_first=patched_first),
        ],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


FROZEN = """
import time
real = time.monotonic
if {is_first}:
    time.monotonic = lambda: 7.0
from otel_leaks.census import CensusTaker
from otel_leaks.ignores import Ignores
time.monotonic = lambda: 7.0

taker = CensusTaker(ignores=Ignores(), max_sites=1)
taker.open()
taken = [taker.take().taken_at]
until = real() + 0.01
while real() < until:
    pass
taken.append(taker.take().taken_at)
print(taken[1] > taken[0])
"""


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no clock that is left alone")
def test_the_clock_of_a_census_goes_on_where_that_of_the_application_was_frozen(
    is_first: bool,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FROZEN.format(is_first=is_first)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
