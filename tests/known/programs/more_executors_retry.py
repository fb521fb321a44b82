"""An executor that is dropped leaves its thread, which a pool's own does not."""

import gc

from more_executors import Executors


def leak():
    executor = Executors.thread_pool().with_retry()
    executor.submit(int).result()
    del executor
    gc.collect()
