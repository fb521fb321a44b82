import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

import pytest


def test_clean():
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()


def test_pool():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(int, "7").result() == 7


def test_leaks(leave_a_thread):
    leave_a_thread()


def test_skipped():
    pytest.skip("not here")


@pytest.mark.xfail(strict=True, reason="still broken")
def test_expected_to_fail():
    assert False


@pytest.mark.xfail(strict=False, reason="works by now")
def test_passes_unexpectedly():
    pass


def test_fails():
    assert False


class TestCase(unittest.TestCase):
    def setUp(self):
        self.event = threading.Event()
        thread = threading.Thread(target=self.event.wait)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.event.set)

    def test_cleanups(self):
        assert not self.event.is_set()

    @unittest.expectedFailure
    def test_expected_failure(self):
        self.fail("as expected")


class AsyncCase(unittest.IsolatedAsyncioTestCase):
    async def test_async(self):
        pass
