"""
Writes docs/messages.md: what people read, side by side, made by the code that says it.

    PYTHONPATH=tests python -m support.messages
"""

from __future__ import annotations

import contextlib
import io
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

from otel_leaks.cli import main
from otel_leaks.model import (
    Detection,
    Ended,
    Finding,
    Frame,
    Hidden,
    Kind,
    Operation,
    Origin,
    Pool,
    Refusal,
    Sample,
    Site,
    Stall,
)
from otel_leaks.report.sentences import resolution, sentence
from otel_leaks.report.text import leaks_text

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"

_HEAD = """\
# Messages

What otel-leaks writes for people, side by side. The page is made by the code that writes the
messages: `PYTHONPATH=tests python -m support.messages`. Each says what leaked, how many, where it
waits, what created it, and what to do next, in that order.

"""

_PRODUCTION = """\
## In production

The first line of each is `python.leak.message` of the span `python.leak.detected`, the body of the
log event, and the WARNING of the logger `otel_leaks`; the second is that of `python.leak.resolved`.

"""

_STDLIB = sysconfig.get_path("stdlib")
_STACK = (
    Frame("shop.mail.Mailer.work", "/srv/shop/mail.py", 41),
    Frame("shop.mail.Mailer.next_letter", "/srv/shop/mail.py", 52),
    Frame("asyncio.queues.Queue.get", f"{_STDLIB}/asyncio/queues.py", 158),
)
_ORIGIN = Origin("shop.mail.Mailer.__init__", "/srv/shop/mail.py", 30)


def _site(kind: Kind, count: int, **more: object) -> Site:
    sample = Sample(1, _STACK, "mailer", 130.0, awaited=None if kind == "thread" else False)
    if kind == "asyncio_task":
        sample = replace(sample, held_by="shop.mail.mailers['...'].worker")
    site = Site(kind, tuple(each.function for each in _STACK), count, "0123456789ab", age_s=130.0)
    return replace(site, sample=sample, origin=_ORIGIN, **more)  # type: ignore[arg-type]


def _findings() -> Iterator[Finding]:
    many = _site("asyncio_task", 9_812)
    yield Finding("asyncio_task", "threshold", 10_007, limit=10_000, sites=(many,), site_count=3)
    yield Finding(
        "asyncio_task", "growth", 93, sites=(_site("asyncio_task", 93),), grown=61, grown_s=4800.0
    )
    yield Finding(
        "thread",
        "growth",
        36,
        sites=(_site("thread", 36, pool="mail"),),
        grown=24,
        grown_s=2700.0,
        pools=36,
    )
    left = _site(
        "asyncio_task",
        340,
        operations=(Operation(1, 1, name="POST /orders", route="/orders"),),
        ended=Ended(340, (61.0, 1320.0)),
    )
    yield Finding("asyncio_task", "outlived", 340, sites=(left,), site_count=1, one_of=40)
    lost = replace(_site("destroyed_task", 3), quiet_s=0.0)
    yield Finding("destroyed_task", "destroyed", 3, sites=(lost,), site_count=1)
    caught = Frame("shop.mail.Mailer.work", "/srv/shop/mail.py", 43)
    stubborn = _site("asyncio_task", 2, refusals=(Refusal(1, 125.0, 3, catches=True, is_own=True),))
    sample = stubborn.sample and replace(
        stubborn.sample, cancelled=True, cancels=3, caught_at=caught
    )
    yield Finding(
        "asyncio_task",
        "uncancelled",
        2,
        age_s=125.0,
        sites=(replace(stubborn, sample=sample),),
        site_count=1,
    )
    held = replace(_site("asyncio_task", 5_000), functions=("shop.mail.send",))
    done = held.sample and replace(
        held.sample, stack=(Frame("shop.mail.send", _STACK[0].file, 12),)
    )
    held = replace(held, sample=done)
    yield Finding(
        "asyncio_task", "retained", 5_000, sites=(held,), site_count=1, grown=4_800, grown_s=4800.0
    )
    pool = Pool(1, "mail", tuple(range(6)), 6, 293, busy=6, stuck_s=300.0)
    yield Finding(
        "thread_pool",
        "saturated",
        293,
        limit=6,
        age_s=300.0,
        sites=(_site("thread", 6),),
        pool=pool,
    )

    stalled = replace(_site("event_loop", 3), operations=left.operations, origin=None)
    stall = Stall(
        stalled,
        at=Frame("shop.reports.build", "/srv/shop/reports.py", 88),
        task="shop.api.export",
        longest_s=2.3,
        quiet_s=0.0,
        cause="computes",
    )
    yield Finding("event_loop", "stalled", 3, age_s=2.3, sites=(stalled,), stall=stall)


def _production() -> Iterator[str]:
    for finding in _findings():
        over = replace(finding, count=0, ended="ended")
        detection = Detection(over, opened_at=0.0, seen_at=720.0, peak=finding.count)
        yield f"### {finding.evidence} of {finding.kind}\n\n"
        yield _block(f"{sentence(finding)}\n\n{resolution(detection)}")


def _tests() -> Iterator[str]:
    yield "## In tests\n\nThe failure of a test, and the exception of `verify_none`.\n\n"
    mine = replace(_ORIGIN, scope="tests/test_mail.py::test_letters_are_sent")
    one = replace(_site("asyncio_task", 1), origin=mine)
    yield _block(leaks_text([one], []))
    caught = Frame("shop.mail.Mailer.work", "/srv/shop/mail.py", 43)
    sample = one.sample and replace(one.sample, cancelled=True, cancels=3, caught_at=caught)
    yield _block(leaks_text([replace(one, sample=sample)], []))
    thread = replace(_site("thread", 3), origin=mine, daemon=False)
    hidden = [Hidden('ignore_thread("pump-*", reason="the client owns it")', 2)]
    yield _block(leaks_text([thread, one], hidden))


def _commands() -> Iterator[str]:
    yield "## Commands\n\n"
    for argv in ([], ["demo"], ["run"], ["view"], ["examples"]):
        out = io.StringIO()
        fixed = {"COLUMNS": "80", "NO_COLOR": "1"}
        with (
            mock.patch.dict(os.environ, fixed),
            contextlib.redirect_stdout(out),
            contextlib.suppress(SystemExit),
        ):
            main([*argv, "--help"])
        yield f"### {' '.join(('otel-leaks', *argv))} --help\n\n"
        yield _block(out.getvalue())


def _block(text: str) -> str:
    said = text.rstrip().replace(_STDLIB, "/usr/lib/python3")
    return f"```text\n{said}\n```\n\n"


def page() -> str:
    """Return the page as the code makes it."""
    parts = [_HEAD, *_tests(), _PRODUCTION, *_production(), *_commands()]
    return "".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
