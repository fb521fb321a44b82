"""Who created a thread or a task: the application's line, and the library in between."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from otel_leaks.model import Origin
from otel_leaks.origins import recorder as origins
from otel_leaks.origins.lines import Lines
from otel_leaks.origins.production import Creations
from otel_leaks.origins.scopes import Scope
from support.leaks import Stand, forever, settle, stuck

pytestmark = pytest.mark.unwatched

LIBRARY = """
import asyncio
import threading
from dataclasses import dataclass

class Client:
    def open(self, run, *args):
        self.thread = threading.Thread(target=run, args=args)
        self.thread.start()

def open_in_a_thread(client, *args):
    thread = threading.Thread(target=client.open, args=args)
    thread.start()
    thread.join()

async def open_task(made, run):
    made.append(asyncio.create_task(run()))

async def open_task_in_a_task(made, run):
    await asyncio.create_task(open_task(made, run))

class Peer(asyncio.Protocol):
    def __init__(self, made, run):
        self.made, self.run = made, run

    def connection_made(self, transport):
        self.made.append(asyncio.get_running_loop().create_task(self.run()))
        self.transport = transport

    def connection_lost(self, error):
        pass

async def serve(made, run):
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Peer(made, run), "127.0.0.1", 0)

async def connect(made, run, port):
    loop = asyncio.get_running_loop()
    return await loop.create_connection(lambda: Peer(made, run), "127.0.0.1", port)

def soon(made, run):
    loop = asyncio.get_running_loop()
    loop.call_later(0, lambda: made.append(loop.create_task(run())))

def in_pool(pool, client, *args):
    return pool.submit(client.open, *args)

@dataclass
class Made:
    run: object
    args: object

    def __post_init__(self):
        self.thread = threading.Thread(target=self.run, args=self.args)
        self.thread.start()
"""


@pytest.fixture
def lib(tmp_path: Path) -> Iterator[ModuleType]:
    """Return a module that is installed, and so not the application's."""
    place = tmp_path / "site-packages"
    place.mkdir()
    (place / "leaklib.py").write_text(LIBRARY)
    sys.path.insert(0, str(place))
    yield import_module("leaklib")
    sys.path.remove(str(place))
    del sys.modules["leaklib"]


OriginOf = Callable[[Any], "Origin | None"]


@pytest.fixture(params=["tests", "production"])
def origin_of(request: pytest.FixtureRequest) -> Iterator[OriginOf]:
    """Return what says where a thing was created, as tests and as production note it."""
    if request.param == "tests":
        origins.starts.open()
        yield origins.starts.origin_of
        origins.starts.close()
        return
    creations = Creations(tasks=True)
    creations.open()

    def noted(thing: Any) -> Origin | None:
        note = Creations.of(thing)
        return creations.origin(note) if note is not None else None

    yield noted
    creations.close()


def line_of(function: Callable[..., Any], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    (number,) = (n for n, line in enumerate(lines, first) if line.strip().startswith(text))
    return number


def said(origin: Origin | None) -> tuple[str, int, str | None]:
    """Return function and line of the application, and the function of the library."""
    assert origin is not None
    function = origin.library.function if origin.library is not None else None
    return origin.function.rpartition(".")[2], origin.line, function


def ended(stand: Stand, *threads: threading.Thread) -> None:
    stand.release(len(threads))
    for thread in threads:
        thread.join(20)


OPEN = "leaklib.Client.open"


def test_a_thread_of_a_library_has_the_line_that_led_to_it_and_the_library(
    lib: ModuleType, origin_of: OriginOf
) -> None:
    stand, client = Stand(), lib.Client()
    client.open(stuck, stand)
    found = origin_of(client.thread)
    ended(stand, client.thread)
    me = test_a_thread_of_a_library_has_the_line_that_led_to_it_and_the_library
    assert said(found) == (me.__name__, line_of(me, "client.open"), OPEN)
    assert found is not None
    assert found.file == __file__
    assert found.library is not None
    assert found.library.file == lib.__file__
    assert found.library.line == line_of(lib.Client.open, "self.thread.start()")


def test_a_thread_that_the_application_starts_itself_has_no_library(origin_of: OriginOf) -> None:
    stand = Stand()
    thread = threading.Thread(target=stuck, args=(stand,))
    thread.start()
    found = origin_of(thread)
    ended(stand, thread)
    me = test_a_thread_that_the_application_starts_itself_has_no_library
    assert said(found) == (me.__name__, line_of(me, "thread.start()"), None)


def test_a_thread_of_a_librarys_thread_has_the_line_that_led_to_that_one(
    lib: ModuleType, origin_of: OriginOf
) -> None:
    stand, client = Stand(), lib.Client()
    lib.open_in_a_thread(client, stuck, stand)
    found = origin_of(client.thread)
    ended(stand, client.thread)
    me = test_a_thread_of_a_librarys_thread_has_the_line_that_led_to_that_one
    assert said(found) == (me.__name__, line_of(me, "lib.open_in_a_thread"), OPEN)


def test_a_thread_that_a_job_starts_is_not_of_whoever_made_the_worker(
    lib: ModuleType, origin_of: OriginOf
) -> None:
    stand, client = Stand(), lib.Client()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        pool.submit(client.open, stuck, stand).result()
    found = origin_of(client.thread)
    ended(stand, client.thread)
    assert found is not None
    assert (found.function, found.library and found.library.function) == (OPEN, OPEN)


def test_what_code_made_of_a_string_creates_is_of_its_module(
    lib: ModuleType, origin_of: OriginOf
) -> None:
    @dataclass
    class Mine(lib.Made):  # type: ignore[name-defined,misc]
        more: int = 0

    stand = Stand()
    threads = [make(stuck, (stand,)).thread for make in (lib.Made, Mine)]
    found = [origin_of(thread) for thread in threads]
    ended(stand, *threads)
    me = test_what_code_made_of_a_string_creates_is_of_its_module
    # The constructor of a dataclass of the library's is the library's, and one of mine is mine.
    library = "leaklib.Made.__post_init__"
    assert said(found[0]) == (me.__name__, line_of(me, "threads = "), library)
    assert said(found[1])[2] == library
    assert found[1] is not None
    assert found[1].function in {
        f"{__name__}.__init__",
        f"{__name__}.__create_fn__.<locals>.__init__",
        f"{__name__}.Mine.__init__",
    }


def test_a_task_of_a_library_has_the_line_that_led_to_it_and_the_library(
    lib: ModuleType, origin_of: OriginOf
) -> None:
    made: list[asyncio.Task[None]] = []

    async def main() -> list[Origin | None]:
        await lib.open_task(made, forever)
        await lib.open_task_in_a_task(made, forever)
        await settle()
        found = [origin_of(task) for task in made]
        for task in made:
            task.cancel()
        return found

    first, second = asyncio.run(main())
    assert said(first) == ("main", line_of(main, "await lib.open_task("), "leaklib.open_task")
    assert said(second) == ("main", line_of(main, "await lib.open_task_in"), "leaklib.open_task")


def test_objects_of_one_place_have_one_origin(lib: ModuleType) -> None:
    origins.starts.open()
    try:
        stand = Stand()
        clients = [lib.Client() for _ in range(3)]
        for client in clients:
            client.open(stuck, stand)
        found = {id(origins.starts.origin_of(client.thread)) for client in clients}
        ended(stand, *(client.thread for client in clients))
    finally:
        origins.starts.close()
    assert len(found) == 1


def test_a_function_at_the_address_of_one_that_is_gone_has_a_line_of_its_own() -> None:
    lines = Lines(lambda _: None)
    frame = "import sys\ndef create(): return sys._getframe()\n"
    for above in range(50):
        names: dict[str, Any] = {"__name__": __name__}
        exec(compile("\n" * above + frame, __file__, "exec"), names)
        assert lines.origin(names["create"](), None).line == above + 2
        names.clear()


def test_objects_of_one_line_have_one_origin(lib: ModuleType) -> None:
    origins.starts.open()
    try:
        stand = Stand()
        first, second = lib.Client(), lib.Client()
        first.open(stuck, stand), second.open(stuck, stand)
        found = {id(origins.starts.origin_of(each.thread)) for each in (first, second)}
        ended(stand, first.thread, second.thread)
    finally:
        origins.starts.close()
    assert len(found) == 1


def test_tasks_of_a_librarys_tasks_have_one_origin_where_theirs_have(
    lib: ModuleType, origin_of: OriginOf
) -> None:
    made: list[asyncio.Task[None]] = []

    async def main() -> set[int]:
        for _ in range(3):
            await lib.open_task_in_a_task(made, forever)
        await settle()
        found = {id(origin_of(task)) for task in made}
        await cancelled(made)
        return found

    assert len(asyncio.run(main())) == 1
    assert len(made) == 3


async def cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - for what a callback does
        await asyncio.sleep(0)


@pytest.mark.skipif(
    sys.version_info >= (3, 15), reason="3.15 creates transports in a way that is not followed yet"
)
def test_what_a_connection_creates_has_the_line_that_serves_or_connects(lib: ModuleType) -> None:
    served: list[asyncio.Task[None]] = []
    connected: list[asyncio.Task[None]] = []

    async def main() -> list[tuple[str, int, str | None]]:
        server = await lib.serve(served, forever)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await lib.connect(connected, forever, port)
        await until(lambda: bool(served and connected))
        found = [said(origins.starts.origin_of(each)) for each in (served[0], connected[0])]
        await cancelled(served + connected)
        transport.close()
        server.close()
        return found

    origins.starts.open()
    try:
        found = asyncio.run(main())
    finally:
        origins.starts.close()
    made = "leaklib.Peer.connection_made"
    assert found == [
        ("main", line_of(main, "server = await"), made),
        ("main", line_of(main, "transport, _ = await"), made),
    ]


def test_what_a_timer_creates_has_the_line_that_set_it(lib: ModuleType) -> None:
    made: list[asyncio.Task[None]] = []

    async def main() -> tuple[str, int, str | None]:
        lib.soon(made, forever)
        await until(lambda: bool(made))
        found = said(origins.starts.origin_of(made[0]))
        await cancelled(made)
        return found

    origins.starts.open()
    try:
        found = asyncio.run(main())
    finally:
        origins.starts.close()
    if sys.version_info >= (3, 11):
        assert found == ("main", line_of(main, "lib.soon("), "leaklib.soon.<locals>.<lambda>")
    else:  # asyncio.run() creates the main task in the context of its caller.
        here = test_what_a_timer_creates_has_the_line_that_set_it
        assert found == (
            here.__name__,
            line_of(here, "found = asyncio.run(main())"),
            "leaklib.<lambda>",
        )


def test_what_a_job_creates_in_a_scope_has_the_line_that_submitted_it(lib: ModuleType) -> None:
    stand, client = Stand(), lib.Client()
    origins.starts.open()
    scope = Scope("test")
    token = scope.enter()
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int).result()
            lib.in_pool(pool, client, stuck, stand).result()
        found = origins.starts.origin_of(client.thread)
    finally:
        scope.leave(token)
        origins.starts.close()
    ended(stand, client.thread)
    me = test_what_a_job_creates_in_a_scope_has_the_line_that_submitted_it
    assert said(found) == (me.__name__, line_of(me, "lib.in_pool("), OPEN)


def test_a_loops_callback_that_nobody_of_the_application_registered_is_the_librarys(
    lib: ModuleType,
) -> None:
    made: list[asyncio.Task[None]] = []
    origins.starts.open()
    loop = asyncio.new_event_loop()
    loop.call_soon(lib.Peer(made, forever).connection_made, None)
    loop.call_soon(loop.stop)
    try:
        loop.run_forever()
        found = origins.starts.origin_of(made[0])
        loop.run_until_complete(cancelled(made))
    finally:
        origins.starts.close()
        loop.close()
    assert found is not None
    # The line that runs the loop is not the one that created it.
    assert found.function == "leaklib.Peer.connection_made"
