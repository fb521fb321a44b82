"""The demo on the live page, which runs until it is stopped; buttons fix and break the shop."""

from __future__ import annotations

import http.client
import json
import queue
import time
from collections.abc import Callable
from contextlib import closing

from otel_leaks.demo.run import LIVE_TITLE, broken, port_of
from otel_leaks.demo.service import Ended, Ready, Service
from otel_leaks.demo.shop import LEAKING
from otel_leaks.demo.traffic import Traffic
from otel_leaks.viewer.desk import Desk
from otel_leaks.viewer.page import Action

__all__ = ["run_live"]

_LOOK_S = 0.25
_TIMEOUT_S = 10.0


class _Shop:
    """The actions of the page's buttons."""

    def __init__(self) -> None:
        self.port: int | None = None

    def fix(self) -> str:
        ended = self._post("/fix")
        if ended is None:
            return "The shop does not answer."
        return f"Fixed: {ended} tasks were cancelled, and orders leave none behind any more."

    def break_again(self) -> str:
        if self._post("/break") is None:
            return "The shop does not answer."
        return "Broken again: each order leaves a task behind."

    def _post(self, path: str) -> int | None:
        if self.port is None:
            return None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_S)
        with closing(connection):
            try:
                connection.request("POST", path)
                said = json.loads(connection.getresponse().read())
            except (OSError, http.client.HTTPException, ValueError):
                return None
        ended: int = said["ended"]
        return ended


def run_live(
    *,
    port: int,
    seconds: float | None,
    task_limit: int,
    opened: Callable[[Desk], object],
    say: Callable[[str], object],
) -> int:
    """
    Run the demo on the live page, and stop everything that it started.

    Args:
        port: The preferred port of the page.
        seconds: Duration, from the first request on; None to run until it is stopped.
        task_limit: Limit of pending tasks.
        opened: Called with the desk once the page is served.
        say: Writes a line.

    Returns:
        The exit status: 0 if the leak was caught, 1 if not.
    """
    shop = _Shop()
    actions = {
        "fix": Action("Fix the shop", shop.fix),
        "break": Action("Break it again", shop.break_again),
    }
    events: queue.SimpleQueue[Ready | Ended] = queue.SimpleQueue()
    program = "a web shop that leaves a task behind with every order"
    with (
        Desk(LIVE_TITLE, port=port, program=program, actions=actions) as desk,
        Service(desk.http, task_limit=task_limit, notify=events.put, is_busy=True) as service,
    ):
        opened(desk)
        shop.port = port_of(events)
        if shop.port is None:
            for line in broken("did not start", service):
                say(line)
            return 1
        with Traffic(shop.port, receipts=True):
            has_ended, was_caught = _watch(desk, events, seconds, say)
        if has_ended:
            for line in broken("ended too early", service):
                say(line)
    return 0 if was_caught and not has_ended else 1


def _watch(
    desk: Desk,
    events: queue.SimpleQueue[Ready | Ended],
    seconds: float | None,
    say: Callable[[str], object],
) -> tuple[bool, bool]:
    """Report findings; return whether the shop has ended, and whether the leak was caught."""
    started = time.monotonic()
    known: set[int] = set()
    was_caught = False
    while seconds is None or time.monotonic() < started + seconds:
        for finding in desk.store.since(0).findings:
            detected = finding.latest.detected
            was_caught = was_caught or any(
                each.function == LEAKING for each in finding.whole.detected.sites
            )
            if finding.number not in known:
                known.add(finding.number)
                say(f"{time.monotonic() - started:3.0f} s  {detected.evidence}: {detected.message}")
        try:
            if isinstance(events.get(timeout=_LOOK_S), Ended):
                return True, was_caught
        except queue.Empty:
            continue
    return False, was_caught
