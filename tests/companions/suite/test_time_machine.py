import asyncio
import datetime

import pytest
import time_machine

kept = []


@pytest.fixture
def stopped():
    with time_machine.travel(datetime.datetime(2024, 1, 1), tick=False):
        yield


def test_stopped(stopped):
    assert datetime.date.today().year == 2024


@pytest.mark.asyncio
async def test_leaks(stopped):
    kept.append(asyncio.ensure_future(asyncio.Event().wait()))
    await asyncio.sleep(0)
