import asyncio
import subprocess
import threading

import pytest

kept = []


def test_time_sleep(mocker):
    sleep = mocker.patch("time.sleep")
    thread = threading.Thread(target=threading.Event().wait, args=(0.05,))
    thread.start()
    kept.append(thread)
    assert not sleep.called


@pytest.mark.asyncio
async def test_asyncio_sleep_leaks(mocker):
    mocker.patch("asyncio.sleep", side_effect=asyncio.CancelledError)
    kept.append(asyncio.ensure_future(asyncio.Event().wait()))


def test_process(mocker):
    mocker.patch("subprocess.Popen._execute_child")
    subprocess.Popen(["true"])


def test_thread_start(mocker):
    start = mocker.patch("threading.Thread.start")
    threading.Thread(target=print).start()
    start.assert_called_once_with()


def test_spied(mocker):
    spy = mocker.spy(threading.Thread, "start")
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
    spy.assert_called_once_with(thread)
