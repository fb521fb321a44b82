import asyncio

import pytest

kept = []


@pytest.mark.asyncio
@pytest.mark.looptime
async def test_an_hour():
    await asyncio.sleep(3600)


@pytest.mark.asyncio
@pytest.mark.looptime
async def test_leaks():
    kept.append(asyncio.ensure_future(asyncio.Event().wait()))
    await asyncio.sleep(0)
