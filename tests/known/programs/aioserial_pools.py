"""A port that is closed leaves the thread pools that it was read and written with."""

import asyncio
import os
import pty

from aioserial import AioSerial


async def leak():
    ours, theirs = pty.openpty()
    port = AioSerial(os.ttyname(theirs))
    KEPT.append(port)
    await asyncio.wait_for(port.write_async(b"1"), 10)
    port.close()
    os.close(ours)
    os.close(theirs)


KEPT = []
