from __future__ import annotations

import ast

import pytest

from otel_leaks.ignores import ignore_fingerprint, parse
from otel_leaks.viewer.arrivals import Link, Opened, Process
from otel_leaks.viewer.copies import failing_test, ignore_line, markdown
from otel_leaks.viewer.received import Detected, Place, Site
from otel_leaks.viewer.store import Finding

SITE = Site(
    "shop.Orders.keep_posted",
    51,
    7.0,
    "a2be62b9c7d1",
    stack=(Place("keep_posted", "/srv/shop.py", 56), Place("get", "/usr/queues.py", 158)),
    awaited=False,
    operation="POST /orders",
    origin=Place("shop.place_order", "/srv/shop.py", 33),
    hint="it waits on a queue that nobody fills",
)
HOSTILE = '<script>alert(1)</script>`|"""\\'


def test_the_ignore_line_is_one_that_is_read() -> None:
    assert parse(ignore_line(SITE)) == (ignore_fingerprint("a2be62b9c7d1", reason="..."),)


def test_what_is_no_fingerprint_gets_no_ignore_line() -> None:
    assert ignore_line(Site("f", 1, 0, '"); import os')) == ""


def test_the_failing_test_of_a_task_is_one_to_fill_in() -> None:
    assert failing_test("asyncio_task", SITE) == (
        """\
# Fingerprint a2be62b9c7d1: while it leaks, verify_none() reports it.
import asyncio

from otel_leaks.testing import verify_none


def test_keep_posted_is_not_left_behind() -> None:
    asyncio.run(scenario())


@verify_none()
async def scenario() -> None:
    # Do what creates shop.Orders.keep_posted.
    # It was created by shop.place_order.
    # It was left behind by POST /orders.
    raise NotImplementedError("reach keep_posted here, then await what ends it")
"""
    )


def test_the_failing_test_of_a_thread_is_no_coroutine() -> None:
    assert failing_test("thread", Site("shop.poll", 1, 0, "abc")) == (
        """\
# Fingerprint abc: while it leaks, verify_none() reports it.
from otel_leaks.testing import verify_none


@verify_none()
def test_poll_is_not_left_behind() -> None:
    # Do what creates shop.poll.
    raise NotImplementedError("reach poll here, then do what ends it")
"""
    )


@pytest.mark.parametrize("kind", ["asyncio_task", "thread"])
@pytest.mark.parametrize("function", ["class", "f.<locals>.<lambda>", HOSTILE, "", "naïve", "1"])
def test_the_failing_test_fails_whatever_the_names(kind: str, function: str) -> None:
    site = Site(function, 1, 0, HOSTILE, operation=HOSTILE, origin=Place(function, "", 1))
    text = failing_test(kind, site)
    ast.parse(text)
    names: dict[str, object] = {}
    exec(text, names)
    (test,) = [each for name, each in names.items() if name.startswith("test_")]
    assert callable(test)
    with pytest.raises(NotImplementedError):
        test()


def finding(message: str, site: Site) -> Finding:
    detected = Detected("asyncio_task", "threshold", message, 53, 50, (site,), 1)
    opened = Opened(
        Process("shop", "i-1", "12"),
        Link("f" * 32, "1" * 16),
        at_s=1_700_000_000.0,
        age_s=7.0,
        fingerprint="",
        pool="",
        operation="",
        refers_to="",
        links=(),
        detected=detected,
    )
    return Finding(1, 1, 1_700_000_000.0, *Finding.pack(opened), set(), peak=60)


def test_a_report_is_markdown_for_a_ticket() -> None:
    given = finding("53 tasks pending", SITE)
    assert markdown(given, given.latest.process) == (
        """\
## 53 tasks pending

- evidence: `threshold`, kind `asyncio_task`
- count: 53, limit 50, peak 60
- opened: 2023-11-14 22:13:20 UTC
- process: `shop`, pid `12`, instance `i-1`

### 1. 51 in `shop.Orders.keep_posted`

- request: `POST /orders`
- created by: `shop.place_order`, `/srv/shop.py:33`
- awaited by: nothing
- oldest: at least 7 s
- hint: it waits on a queue that nobody fills
- fingerprint: `a2be62b9c7d1`

```text
keep_posted  /srv/shop.py:56
  get  /usr/queues.py:158
```
"""
    )


def test_names_stay_names_in_markdown() -> None:
    site = Site("`<b>`", 1, 0, "abc", stack=(Place("```", "</pre>", 1),), hint="<script>*_x_*")
    text = markdown(finding("<img src=x> [a](b)", site), Process("shop", ""))
    assert "## \\<img src=x\\> \\[a\\](b)\n" in text
    assert "### 1. 1 in `` `<b>` ``\n" in text
    assert "- hint: \\<script\\>\\*\\_x\\_\\*\n" in text
    assert "\n````text\n```  </pre>:1\n````\n" in text


def test_a_time_that_is_none_is_unknown() -> None:
    given = finding("m", SITE)
    given.opened_s = 1e300
    assert "- opened: unknown\n" in markdown(given, Process("shop", ""))
