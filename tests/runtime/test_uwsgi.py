"""How a worker of uWSGI is noticed; the server itself is in tests/reliability."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from otel_leaks.runtime import uwsgi


@pytest.fixture
def module() -> ModuleType:
    return ModuleType("uwsgi")


@pytest.fixture
def begun() -> list[str]:
    return []


@pytest.fixture
def workers(module: ModuleType, begun: list[str]) -> Iterator[uwsgi.Workers]:
    workers = uwsgi.Workers(module, lambda: begun.append("begun"))
    workers.open()
    yield workers
    workers.close()


def fork(module: ModuleType) -> None:
    """Do what uWSGI does in a worker: it reads the module's dictionary."""
    vars(module)["post_fork_hook"]()


def test_outside_of_uwsgi_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert uwsgi.server() is None
    # A stand-in of an application's, for its tests.
    stub: Any = ModuleType("uwsgi")
    stub.worker_id = lambda: 0
    monkeypatch.setitem(sys.modules, "uwsgi", stub)
    assert uwsgi.server() is None


def test_an_interpreter_that_another_server_embeds_has_no_module_uwsgi(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "orig_argv", [])
    assert uwsgi.server() is None
    assert "uwsgi" not in sys.modules


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({}, False),
        ({"worker_id": 0, "mule_id": 0}, False),
        ({"worker_id": 2}, True),
        ({"mule_id": 1}, True),
    ],
)
def test_workers_and_mules_are_distinguished_from_the_master(
    module: ModuleType, ids: dict[str, int], expected: bool
) -> None:
    for name, n in ids.items():
        setattr(module, name, lambda n=n: n)
    assert uwsgi.is_worker(module) is expected


def test_threads_run_where_the_server_does_not_say_otherwise(module: Any) -> None:
    assert uwsgi.has_threads(module)
    module.has_threads = 0
    assert not uwsgi.has_threads(module)


@pytest.mark.usefixtures("workers")
def test_a_worker_begins_once(module: ModuleType, begun: list[str]) -> None:
    fork(module)
    fork(module)
    assert begun == ["begun"]


def test_hooks_of_others_are_called_whether_they_were_set_before_or_after(
    module: Any, begun: list[str]
) -> None:
    module.post_fork_hook = lambda: begun.append("before")
    workers = uwsgi.Workers(module, lambda: begun.append("begun"))
    workers.open()
    fork(module)
    module.post_fork_hook = lambda: begun.append("after")
    fork(module)
    assert begun == ["before", "begun", "after"]
    workers.close()


def test_a_hook_that_chains_to_ours_begins_once(module: Any, begun: list[str]) -> None:
    workers = uwsgi.Workers(module, lambda: begun.append("begun"))
    workers.open()
    inner: Callable[[], None] = module.post_fork_hook

    def chained() -> None:
        inner()
        begun.append("chained")

    module.post_fork_hook = chained
    fork(module)
    assert begun == ["begun", "chained"]
    workers.close()


def test_a_hook_that_raises_does_not_cost_the_monitor(
    module: Any, workers: uwsgi.Workers, begun: list[str]
) -> None:
    def breaks() -> None:
        raise ValueError("theirs")

    module.post_fork_hook = breaks
    with pytest.raises(ValueError, match="theirs"):
        fork(module)
    assert begun == ["begun"]


def test_closing_leaves_the_hook_of_the_others_and_nothing_of_ours(
    module: Any, begun: list[str]
) -> None:
    callbacks = list(gc.callbacks)
    workers = uwsgi.Workers(module, lambda: begun.append("begun"))
    workers.open()
    workers.close()
    assert "post_fork_hook" not in vars(module)
    workers.open()
    module.post_fork_hook = theirs = lambda: None
    workers.close()
    assert module.post_fork_hook is theirs
    assert gc.callbacks == callbacks
    fork(module)
    assert begun == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: Linux or macOS")
def test_a_worker_that_is_not_announced_starts_at_its_first_garbage_collection() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
            import gc, os, threading
            from types import ModuleType
            from otel_leaks.runtime import uwsgi

            uwsgi.NOTICED_S = 0.01
            main, begun = threading.get_ident(), threading.Event()

            def begin():
                os.write(1, b"begun %r\\n" % (threading.get_ident() == main))
                begun.set()

            workers = uwsgi.Workers(ModuleType("uwsgi"), begin)
            workers.open()
            gc.collect()
            if os.fork() == 0:
                gc.collect()
                gc.collect()
                os._exit(0 if begun.wait(20) else 1)
            os.wait()
            workers.close()
        """),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("begun False\n", "")
