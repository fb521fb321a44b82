import pytest
import trio


@pytest.mark.trio
async def test_clean(nursery):
    nursery.start_soon(trio.sleep, 0)


@pytest.mark.trio
async def test_thread():
    assert await trio.to_thread.run_sync(int) == 0


@pytest.mark.trio
async def test_leaks(leave_a_thread):
    leave_a_thread()
