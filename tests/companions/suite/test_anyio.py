import anyio
import anyio.to_thread
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def number(anyio_backend):
    yield 7


async def test_clean(number):
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
    assert number == 7


async def test_thread():
    assert await anyio.to_thread.run_sync(int) == 0


async def test_leaks(leave_a_thread):
    leave_a_thread()
