"""What the suites of others taught, as small as it gets: docs/field-report.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from patterns.pages import Run, pytest_in

pytestmark = pytest.mark.usefixtures("forked_pages")

# As pytest-aiohttp's aiohttp_client: the test starts it, through a fixture that ends it.
FACTORIES = """
import asyncio
import threading

import pytest
import pytest_asyncio


@pytest.fixture
def start_thread():
    release = threading.Event()
    threads = []

    def start():
        threads.append(threading.Thread(target=release.wait, daemon=True))
        threads[-1].start()

    yield start
    if {ends}:
        release.set()
        for thread in threads:
            thread.join()


@pytest_asyncio.fixture
async def start_task():
    tasks = []

    def start():
        tasks.append(asyncio.create_task(asyncio.Event().wait()))

    yield start
    if {ends}:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_thread(start_thread):
    start_thread()


@pytest.mark.asyncio
async def test_task(start_task):
    start_task()
    await asyncio.sleep(0)
"""


def run(folder: Path, *, ends: bool) -> Run:
    (folder / "test_it.py").write_text(FACTORIES.replace("{ends}", str(ends)), encoding="utf-8")
    return pytest_in(folder, "--leaks", "-o", "asyncio_default_fixture_loop_scope=function")


def test_what_a_fixture_of_the_test_ends_is_no_leak(tmp_path: Path) -> None:
    ran = run(tmp_path, ends=True)
    assert ran.code == 0, ran.output


def test_what_a_fixture_of_the_test_should_end_and_does_not_is_a_leak(tmp_path: Path) -> None:
    ran = run(tmp_path, ends=False)
    assert ran.code == 1, ran.output
    assert "1 leaked thread" in ran.output
    assert "1 leaked asyncio task" in ran.output
