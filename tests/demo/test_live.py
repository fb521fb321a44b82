from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import psutil  # type: ignore[import-untyped]

from otel_leaks.demo import live
from otel_leaks.demo.busy_shop import busy_shop

OTEL_LEAKS = "import sys; from otel_leaks.cli import main; sys.exit(main())"


@contextmanager
def demo(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OTEL_LEAKS, "demo", "--port", "0", "--no-browser", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OTEL_SDK_DISABLED": "true", **environ},
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_with_a_port_it_is_on_the_page_and_ends_after_its_seconds() -> None:
    with demo("--seconds", "0.1") as process:
        out, err = process.communicate(timeout=100)
    page = r"The page is at http://127\.0\.0\.1:\d+/#token=\S+\nCtrl-C ends it\.\n"
    # Nothing can be caught as soon as that.
    assert (process.returncode, err) == (1, "")
    assert re.fullmatch(page, out), out


def test_the_shop_of_the_page_does_not_outlive_a_demo_that_was_killed() -> None:
    with demo() as process:
        assert "http://127.0.0.1:" in first_line(process)
        below: list[Any] = []
        while not below:
            below = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(below, timeout=60)
        assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def test_a_shop_of_the_page_that_does_not_start_is_told_with_its_log() -> None:
    with demo("--limit", "0") as process:
        out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (1, "")
    assert "The shop did not start. Its log ends with:\n" in out
    assert "ValueError: task_limit must be a whole number >= 1" in out


def test_the_fix_ends_what_was_left_behind_and_breaking_it_brings_it_back() -> None:
    async def main() -> None:
        transport = httpx.ASGITransport(busy_shop())
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            for _ in range(3):
                assert (await client.post("/orders")).status_code == 201
            assert (await client.post("/fix")).json() == {"ended": 3}
            await client.post("/orders")
            assert (await client.post("/fix")).json() == {"ended": 0}
            await client.post("/break")
            await client.post("/orders")
            # Its task would wait for ever, unless the garbage collector comes: nobody refers to it.
            gc.disable()
            assert (await client.post("/receipts")).status_code == 202
            assert (await client.post("/fix")).json() == {"ended": 1}
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    try:
        asyncio.run(main())
    finally:
        gc.enable()


class _Answers(BaseHTTPRequestHandler):
    """Answers as the shop does."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.path)
        body = {"/fix": b'{"ended": 3}', "/break": b'{"ended": 0}'}[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing to stderr."""


def test_the_buttons_of_the_page_say_what_they_did() -> None:
    shop = live._Shop()
    assert (shop.fix(), shop.break_again()) == ("The shop does not answer.",) * 2
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        shop.port = server.server_address[1]
        assert (shop.fix(), shop.break_again()) == (
            "Fixed: 3 tasks were cancelled, and orders leave none behind any more.",
            "Broken again: each order leaves a task behind.",
        )
        assert _Answers.asked == ["/fix", "/break"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
