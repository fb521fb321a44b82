"""A scheduler that is shut down leaves the thread pool of its TornadoExecutor."""

import asyncio

from apscheduler.schedulers.tornado import TornadoScheduler


async def leak():
    ran = asyncio.Event()
    loop = asyncio.get_running_loop()
    scheduler = TornadoScheduler()
    KEPT.append(scheduler)
    scheduler.start()
    scheduler.add_job(lambda: loop.call_soon_threadsafe(ran.set))
    await asyncio.wait_for(ran.wait(), 10)
    await asyncio.sleep(0.1)
    scheduler.shutdown()


KEPT = []
