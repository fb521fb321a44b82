import asyncio

import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio

kept = []


@pytest_asyncio.fixture
async def task():
    task = asyncio.ensure_future(asyncio.sleep(60))
    yield task
    task.cancel()


async def test_clean():
    await asyncio.sleep(0)


async def test_clean_too():
    await asyncio.gather(asyncio.sleep(0), asyncio.to_thread(int))


async def test_with_a_fixture(task):
    assert not task.done()


async def test_cancels_and_goes():
    asyncio.ensure_future(asyncio.sleep(60)).cancel()


async def test_leaks():
    kept.append(asyncio.ensure_future(asyncio.sleep(60)))
    await asyncio.sleep(0)


class TestInAClass:
    async def test_clean(self):
        await asyncio.sleep(0)
