from __future__ import annotations

import asyncio
import concurrent.futures.process
import gc
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from otel_leaks.testing import LeaksFound, verify_none

assert concurrent.futures.process  # Its pools are looked for once it is imported.


def test_a_look_at_a_scope_does_not_go_through_the_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    # In a process with a million objects that takes 20 ms, for each test of a suite.
    walked: list[str] = []

    def walk(*_: object) -> list[object]:
        walked.append("the heap")
        return []

    async def main() -> None:
        async with verify_none():
            await asyncio.create_task(asyncio.sleep(0))

    # On 3.14 the first scope that opens looks for the loops that live, once.
    with verify_none():
        monkeypatch.setattr(gc, "get_referrers", walk)
        monkeypatch.setattr(gc, "get_objects", walk)
        asyncio.run(main())
    assert walked == []


def sleeping(method: str) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context(method)
    process = context.Process(target=signal.pause)  # type: ignore[attr-defined]
    process.start()
    return process  # type: ignore[no-any-return]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no children to reap")
def test_a_child_is_reaped_whoever_waited_for_it() -> None:
    with verify_none():
        process = sleeping("spawn")
        started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        for pid in (process.pid, started.pid):
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
    process.join(0)
    started.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork server")
@pytest.mark.allow_leaks(reason="the fork server stays for the life of the process")
def test_a_child_of_a_fork_server_is_found() -> None:
    with pytest.raises(LeaksFound, match="pause"), verify_none():
        process = sleeping("forkserver")
    process.kill()
    process.join()
