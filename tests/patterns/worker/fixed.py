import asyncio
from contextlib import suppress

import pytest


class Mailer:
    """Sends the letters of one tenant, so that no request waits for it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.letters: asyncio.Queue[str] = asyncio.Queue()
        self.worker = asyncio.create_task(self.work())

    def send(self, letter: str) -> None:
        self.letters.put_nowait(letter)

    async def work(self) -> None:
        while True:
            letter = await self.letters.get()
            self.sent.append(letter)
            self.letters.task_done()

    async def close(self) -> None:
        """Wait until all letters are sent, and end the worker."""
        await self.letters.join()
        self.worker.cancel()
        with suppress(asyncio.CancelledError):
            await self.worker


mailers: dict[str, Mailer] = {}


def mailer_of(tenant: str) -> Mailer:
    if tenant not in mailers:
        mailers[tenant] = Mailer()
    return mailers[tenant]


@pytest.mark.asyncio
async def test_letters_are_sent_before_it_closes() -> None:
    mailer = mailer_of("acme")
    mailer.send("Dear customer")
    await mailer.close()
    assert mailer.sent == ["Dear customer"]
