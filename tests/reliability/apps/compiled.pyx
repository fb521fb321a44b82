# cython: language_level=3
"""A coroutine that Cython compiles."""

import asyncio


async def stuck():
    await asyncio.get_running_loop().create_future()
