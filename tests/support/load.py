"""
Requests at a fixed rate, each timed from when it was due.

A client that waits for an answer before it sends the next request asks a slow server less
often, and does not see most of what a pause costs. Here the times at which requests are
due do not depend on the answers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["Load", "offer", "percentile"]

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Load:
    """What came of a load."""

    latencies_ms: tuple[float, ...]
    """Of the answered requests, in ascending order: from when each was due to the end of its
    answer."""
    failures: tuple[str, ...]
    """One for each request that got no answer, or one other than 200."""
    seconds: float
    """From the first request's due time to the end of the last answer."""

    @property
    def per_second(self) -> float:
        """Answered requests."""
        return len(self.latencies_ms) / self.seconds


def percentile(ascending: Sequence[float], part: float) -> float:
    """Return the value that *part* (0 to 1) of the values do not exceed; NaN of none."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(part * len(ascending)) - 1)]


async def offer(
    port: int,
    path: Callable[[int], str],
    *,
    per_second: float,
    seconds: float,
    timeout_s: float = 30.0,
    reuse: bool = True,
) -> Load:
    """
    Send requests to a port of 127.0.0.1.

    Args:
        port: Of a server of HTTP/1.1.
        path: Takes the number of a request, from 0.
        per_second: How many requests are due, evenly.
        seconds: How long.
        timeout_s: After which a request has failed.
        reuse: Whether connections are kept for more than one request.
    """
    loop = asyncio.get_running_loop()
    idle: list[_Connection] = []
    latencies: list[float] = []
    failures: list[str] = []

    async def ask(number: int, due: float) -> None:
        try:
            while idle and idle[-1][0].at_eof():
                idle.pop()[1].close()  # The server has kept it for long enough.
            connection = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
            try:
                is_open = await asyncio.wait_for(_get(connection, path(number)), timeout_s)
            except BaseException:
                connection[1].close()
                raise
            if is_open and reuse:
                idle.append(connection)
            else:
                connection[1].close()
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
            failures.append(f"{path(number)}: {error!r}")
        else:
            latencies.append((loop.time() - due) * 1e3)

    started = loop.time()
    asking = set()
    for number in range(int(per_second * seconds)):
        due = started + number / per_second
        await asyncio.sleep(max(0.0, due - loop.time()))
        task = asyncio.create_task(ask(number, due))
        asking.add(task)
        task.add_done_callback(asking.discard)
    while asking:
        await asyncio.wait(set(asking))
    ended = loop.time()
    for _, writer in idle:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return Load(tuple(sorted(latencies)), tuple(failures), ended - started)


async def _get(connection: _Connection, path: str) -> bool:
    """Ask, read the answer, and say whether the connection can be used again."""
    reader, writer = connection
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = head.split(None, 2)[1]
    length = next(
        int(line.partition(b":")[2])
        for line in head.splitlines()
        if line.startswith(b"content-length:")
    )
    await reader.readexactly(length)
    if status != b"200":
        raise ValueError(f"status {status.decode()}")
    return b"connection: close" not in head
