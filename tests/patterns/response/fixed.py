import asyncio

import pytest


class Warehouse:
    """Answers each request, some time later, by its number."""

    def __init__(self, stock: dict[str, int]) -> None:
        self.stock = stock
        self.waiting: dict[int, asyncio.Future[int]] = {}

    async def request(self, item: str) -> int:
        number = len(self.waiting)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting[number] = answer
        self.receive(number, item)
        return await answer

    def receive(self, number: int, item: str) -> None:
        if item not in self.stock:
            self.waiting[number].set_exception(LookupError(item))
            return
        self.waiting[number].set_result(self.stock[item])


warehouses = [Warehouse({"cup": 3}), Warehouse({"plate": 5})]


async def ask_all(item: str) -> int:
    """Ask all warehouses, and take the answer that comes first."""
    requests = [asyncio.create_task(each.request(item)) for each in warehouses]
    try:
        for each in asyncio.as_completed(requests):
            try:
                return await each
            except LookupError:
                continue
        raise LookupError(item)
    finally:
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)


@pytest.mark.asyncio
async def test_the_warehouse_that_has_it_answers() -> None:
    assert await ask_all("cup") == 3
