from __future__ import annotations

import dataclasses
import io
import os
import shutil
from dataclasses import replace

import pytest

from otel_leaks.viewer.received import Counted, Counts, Detected, Place, Site
from otel_leaks.viewer.terminal import (
    Scene,
    Screen,
    Style,
    explain,
    picture,
    status,
    style_for,
)

LEAK = "shop.orders.keep_customer_posted"
PLAIN = Style()
ASCII = Style(unicode=False)
COLOR = Style(color=True)


def counts(at_s: float, leaked: int) -> Counts:
    functions = ((LEAK, leaked), ("shop.a", 1), ("shop.b", 1), ("shop.c", 1), ("shop.d", 1))
    tasks = Counted("asyncio_task", leaked + 4, 20, functions)
    return Counts(at_s, (tasks, Counted("thread", 1, None, (("main", 1),))))


SCENE = Scene(
    "a shop",
    "16 orders",
    7.4,
    tuple(counts(float(at_s), leaked) for at_s, leaked in enumerate((0, 4, 8, 12, 16))),
)
OVER = replace(SCENE, history=(*SCENE.history, counts(5.0, 20)))

SITE = Site(
    LEAK,
    20,
    6.6,
    "a1b2c3d4e5f6",
    stack=(
        Place("keep_customer_posted", "/srv/shop/orders.py", 56),
        Place("next_update", "/srv/shop/orders.py", 61),
        Place("get", "/usr/local/lib/python3.11/asyncio/queues.py", 158),
    ),
    awaited=False,
)
DETECTED = Detected(
    "asyncio_task",
    "threshold",
    "24 asyncio tasks pending, more than the limit of 20; most of them: 20 in "
    "shop.orders.keep_customer_posted (/srv/shop/orders.py:56), the oldest for at least 7 s",
    24,
    20,
    (SITE,),
    5,
)


def text(*lines: str) -> str:
    return "\n".join(line.rstrip() for line in lines)


def test_a_picture_shows_counts_with_limits_and_how_they_came_about() -> None:
    assert text(*picture(SCENE, PLAIN, 80)) == text(
        "a shop                                                                      7 s",
        "16 orders",
        "",
        "asyncio tasks   20  ██████████████████████████████  limit 20",
        "                16  ▁▃▅▆█             shop.orders.keep_customer_posted",
        "                 1  ▁▁▁▁▁             shop.a",
        "                 1  ▁▁▁▁▁             shop.b",
        "                 2                    in 2 others",
        "",
        "threads          1",
        "                 1  ▂▂▂▂▂             main",
    )


def test_a_narrow_picture_shortens_bars_and_names_and_needs_no_unicode() -> None:
    lines = picture(OVER, ASCII, 60)
    assert text(*lines) == text(
        "a shop                                                  7 s",
        "16 orders",
        "",
        "asyncio tasks   24  ###############  over the limit of 20",
        "                20  _.=+%#            ...ep_customer_posted",
        "                 1  ______            shop.a",
        "                 1  ______            shop.b",
        "                 2                    in 2 others",
        "",
        "threads          1",
        "                 1  ......            main",
    )
    assert max(map(len, lines)) < 60


def test_before_the_first_counts_a_picture_is_its_title() -> None:
    assert picture(replace(SCENE, history=()), PLAIN, 60) == (
        "a shop                                                  7 s",
        "16 orders",
    )


@pytest.mark.parametrize(
    ("leaked", "color"), [(8, "\x1b[32m"), (16, "\x1b[33m"), (17, "\x1b[1;31m")]
)
def test_the_bar_warns_before_the_limit(leaked: int, color: str) -> None:
    lines = picture(replace(SCENE, history=(counts(0.0, leaked),)), COLOR, 80)
    assert lines[3].startswith(f"asyncio tasks {leaked + 4:>4}  {color}█")


def test_beyond_the_limit_the_function_that_most_run_stands_out() -> None:
    lines = picture(OVER, COLOR, 80)
    assert [line.startswith("\x1b[1;31m") for line in lines[4:7]] == [True, False, False]
    assert not any(line.startswith("\x1b[1;31m") for line in picture(SCENE, COLOR, 80))


def test_a_kind_of_which_nothing_is_left_is_drawn() -> None:
    nothing = Counts(0.0, (Counted("thread", 0, 9, ()),))
    assert picture(replace(SCENE, history=(nothing,)), ASCII, 60)[2:] == (
        "",
        "threads          0  ...............  limit 9",
    )


def test_a_status_says_the_same_in_a_line() -> None:
    assert status(SCENE, ASCII) == (
        "  7 s   asyncio tasks   20  ###############  limit 20   threads    1   16 orders"
    )
    assert status(OVER, PLAIN) == (
        "  7 s   asyncio tasks   24  ███████████████  over the limit of 20"
        "   threads    1   16 orders"
    )


def test_a_detection_is_explained_by_its_largest_site() -> None:
    assert text(*explain(DETECTED, PLAIN, 72)) == text(
        "LEAK DETECTED",
        "24 asyncio tasks pending, more than the limit of 20; most of them: 20",
        "in shop.orders.keep_customer_posted (/srv/shop/orders.py:56), the",
        "oldest for at least 7 s",
        "",
        "  what         20 asyncio tasks, of 24 pending in all",
        "  function     shop.orders.keep_customer_posted",
        "  oldest       pending for at least 7 s",
        "  awaited by   nothing",
        "  waits at     keep_customer_posted  /srv/shop/orders.py:56",
        "               └ next_update         /srv/shop/orders.py:61",
        "                 └ get               …/python3.11/asyncio/queues.py:158",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    )


def test_a_hint_is_wrapped_below_the_stack() -> None:
    hinted = dataclasses.replace(
        DETECTED, sites=(dataclasses.replace(SITE, hint="it waits " * 10 + "for ever"),)
    )
    assert text(*explain(hinted, PLAIN, 72)[-4:]) == text(
        "                 └ get               …/python3.11/asyncio/queues.py:158",
        "  hint         it waits it waits it waits it waits it waits it waits it",
        "               waits it waits it waits it waits for ever",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    )


def test_in_a_pipe_nothing_is_shortened() -> None:
    lines = explain(DETECTED, ASCII, None)
    assert lines[1] == DETECTED.message
    assert lines[7:] == (
        "  waits at     keep_customer_posted  /srv/shop/orders.py:56",
        "               \\ next_update         /srv/shop/orders.py:61",
        "                 \\ get               /usr/local/lib/python3.11/asyncio/queues.py:158",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    )


def test_one_thread_is_told_as_one_thread() -> None:
    site = Site("pool.work", 1, 300.0, "a1b2c3d4e5f6")
    detected = Detected("thread", "threshold", "1 thread alive", 1, None, (site,), 1)
    assert explain(detected, PLAIN, 80) == (
        "LEAK DETECTED",
        "1 thread alive",
        "",
        "  what         1 thread",
        "  function     pool.work",
        "  oldest       alive for at least 5 min",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    )


def test_something_that_awaits_the_leak_is_said() -> None:
    awaited = replace(DETECTED, sites=(replace(SITE, awaited=True),))
    assert "  awaited by   other code, which waits as well" in explain(awaited, PLAIN, 80)


def test_a_detection_without_sites_is_its_message() -> None:
    assert explain(replace(DETECTED, sites=()), PLAIN, None) == ("LEAK DETECTED", DETECTED.message)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Latin(io.StringIO):
    encoding = "latin-1"


def sized(monkeypatch: pytest.MonkeyPatch, columns: int, lines: int) -> None:
    size = os.terminal_size((columns, lines))
    monkeypatch.setattr(shutil, "get_terminal_size", lambda **_: size)


TERM = {"TERM": "xterm", "WT_SESSION": "1"}


def test_a_terminal_is_drawn_over_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, 60, 24)
    stream = Terminal()
    screen = Screen(stream, {**TERM, "NO_COLOR": "1"})
    scene = Scene("a shop", "1 order", 1.0)
    screen.draw(scene)
    screen.draw(replace(scene, note="2 orders", elapsed_s=2.0))
    screen.write("the end")
    screen.draw(scene)
    title = "a shop                                                  "
    assert stream.getvalue() == (
        f"\r{title}1 s\x1b[K\n\r1 order\x1b[K\n\x1b[J"
        f"\x1b[2A\r{title}2 s\x1b[K\n\r2 orders\x1b[K\n\x1b[J"
        "the end\n"
        f"\r{title}1 s\x1b[K\n\r1 order\x1b[K\n\x1b[J"
    )


def test_what_does_not_fit_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    sized(monkeypatch, 80, 5)
    stream = Terminal()
    screen = Screen(stream, TERM)
    screen.draw(SCENE)
    assert stream.getvalue().count("\n") == 4
    sized(monkeypatch, 59, 5)
    screen.draw(SCENE)
    assert stream.getvalue().count("\n") == 4


@pytest.mark.parametrize(
    ("stream", "environ", "columns"),
    [
        (io.StringIO(), TERM, 80),
        (Terminal(), {"TERM": "dumb"}, 80),
        (Terminal(), TERM, 59),
    ],
)
def test_what_is_no_terminal_gets_lines_alone(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, environ: dict[str, str], columns: int
) -> None:
    sized(monkeypatch, columns, 24)
    screen = Screen(stream, environ)
    screen.draw(SCENE)
    assert (screen.live, screen.columns, screen.style.color) == (False, None, False)
    assert stream.getvalue() == ""


def test_color_is_for_terminals_that_were_not_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sized(monkeypatch, 80, 24)
    assert [
        style_for(Terminal(), TERM),
        style_for(Terminal(), {**TERM, "NO_COLOR": "1"}),
        style_for(Terminal(), {**TERM, "NO_COLOR": ""}),
        style_for(Latin(), TERM),
    ] == [
        Style(color=True),
        Style(color=False),
        Style(color=True),
        Style(color=False, unicode=False),
    ]


def test_what_outlived_its_request_is_explained_with_the_request_and_where_it_began() -> None:
    site = replace(
        SITE,
        count=340,
        operation="POST /orders",
        origin=Place("shop.orders.place_order", "/srv/shop/orders.py", 30),
        stack=SITE.stack[:1],
    )
    message = "340 asyncio tasks shop.orders.keep_customer_posted outlived POST /orders"
    detected = Detected("asyncio_task", "outlived", message, 340, None, (site,), 1)
    assert text(*explain(detected, PLAIN, None)) == text(
        "LEAK DETECTED",
        message,
        "",
        "  what         340 asyncio tasks",
        "  function     shop.orders.keep_customer_posted",
        "  request      POST /orders",
        "  oldest       pending for at least 7 s",
        "  awaited by   nothing",
        "  began in     shop.orders.place_order  /srv/shop/orders.py:30",
        "  waits at     keep_customer_posted  /srv/shop/orders.py:56",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    )


def test_what_was_destroyed_is_explained_with_its_coroutine() -> None:
    site = replace(SITE, count=3, awaited=None, stack=SITE.stack[:1])
    detected = Detected("destroyed_task", "destroyed", "3 destroyed", 3, None, (site,), 1)
    assert text(*explain(detected, PLAIN, None)) == text(
        "LEAK DETECTED",
        "3 destroyed",
        "",
        "  what         3 asyncio tasks",
        "  function     shop.orders.keep_customer_posted",
        "  coroutine    keep_customer_posted  /srv/shop/orders.py:56",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    )
