import asyncio
import datetime
import threading

import pytest

kept = []


def test_frozen(freezer):
    freezer.move_to("2024-01-01")
    assert datetime.date.today().year == 2024


def test_thread_ends_soon(freezer):
    thread = threading.Thread(target=threading.Event().wait, args=(0.05,))
    thread.start()
    kept.append(thread)


@pytest.mark.asyncio
async def test_cancels_and_goes(freezer):
    task = asyncio.ensure_future(asyncio.Event().wait())
    await asyncio.sleep(0)
    task.cancel()


@pytest.mark.asyncio
async def test_leaks(freezer):
    kept.append(asyncio.ensure_future(asyncio.Event().wait()))
    await asyncio.sleep(0)
