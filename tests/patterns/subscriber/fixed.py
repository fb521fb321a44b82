import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import pytest


class Feed:
    """Sends each new price to all who subscribed."""

    def __init__(self) -> None:
        self.subscribers: set[asyncio.Queue[float]] = set()

    def publish(self, price: float) -> None:
        for queue in self.subscribers:
            queue.put_nowait(price)

    async def subscribe(self) -> AsyncGenerator[float, None]:
        queue: asyncio.Queue[float] = asyncio.Queue()
        self.subscribers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.subscribers.discard(queue)


class Page:
    """Shows the newest price while somebody looks at it."""

    def __init__(self, feed: Feed) -> None:
        self.shown: list[float] = []
        self.changed = asyncio.Event()
        self.listener = asyncio.create_task(self.listen(feed))

    async def listen(self, feed: Feed) -> None:
        async with aclosing(feed.subscribe()) as prices:
            async for price in prices:
                self.shown.append(price)
                self.changed.set()

    async def close(self) -> None:
        self.shown.clear()
        self.listener.cancel()
        with suppress(asyncio.CancelledError):
            await self.listener


feed = Feed()


@pytest.mark.asyncio
async def test_a_page_shows_the_newest_price() -> None:
    page = Page(feed)
    await asyncio.sleep(0)
    feed.publish(9.99)
    await page.changed.wait()
    assert page.shown == [9.99]
    await page.close()
    assert feed.subscribers == set()
