"""Whether a thread has run meanwhile."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from otel_leaks.runtime.switches import switches_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux counts them")


class Worker:
    def __init__(self) -> None:
        self.job = threading.Semaphore(0)
        self.did = 0
        self.is_ended = False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self) -> None:
        while True:
            self.job.acquire()
            if self.is_ended:
                return
            self.did += 1

    def asleep(self) -> int:
        """Wait until it sleeps, and return its count."""
        while True:
            count = switches_of(self.thread)
            time.sleep(0.01)  # One that waits for the GIL gets it.
            if count is not None and count == switches_of(self.thread):
                return count


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.is_ended = True
    worker.job.release()
    worker.thread.join()


def test_it_stays_while_a_thread_sleeps_and_is_another_once_it_ran(worker: Worker) -> None:
    before = worker.asleep()
    assert switches_of(worker.thread) == before
    worker.job.release()
    while not worker.did:
        pass
    assert worker.asleep() > before


def test_it_is_unknown_while_a_thread_runs() -> None:
    assert switches_of(threading.current_thread()) is None


def test_it_is_unknown_of_what_has_not_begun_or_is_no_thread(worker: Worker) -> None:
    assert switches_of(threading.Thread()) is None
    assert switches_of(object()) is None
