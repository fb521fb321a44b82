from __future__ import annotations

import dataclasses
import io
from dataclasses import replace

import pyte
import pytest
from rich.console import Console
from rich.text import Text

from otel_leaks.viewer.received import Counted, Counts, Detected, Place, Site
from otel_leaks.viewer.terminal import ASCII, UNICODE, Scene, Screen, explain, picture, status

LEAK = "shop.orders.keep_customer_posted"


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


def lines_of(drawn: Text, *, color: bool = False) -> list[str]:
    """Return what a terminal gets, line by line."""
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=color, color_system="standard" if color else None, _environ={}
    )
    console.print(drawn, soft_wrap=True)
    return stream.getvalue().splitlines()


def text(drawn: Text) -> str:
    return block(*lines_of(drawn))


def block(*lines: str) -> str:
    return "\n".join(line.rstrip() for line in lines)


def test_a_picture_shows_counts_with_limits_and_how_they_came_about() -> None:
    assert text(picture(SCENE, UNICODE, 80)) == block(
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
    drawn = picture(OVER, ASCII, 60)
    assert text(drawn) == block(
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
    assert max(map(len, lines_of(drawn))) < 60


def test_before_the_first_counts_a_picture_is_its_title() -> None:
    assert lines_of(picture(replace(SCENE, history=()), UNICODE, 60)) == [
        "a shop                                                  7 s",
        "16 orders",
    ]


@pytest.mark.parametrize(
    ("leaked", "color"), [(8, "\x1b[32m"), (16, "\x1b[33m"), (17, "\x1b[1;31m")]
)
def test_the_bar_warns_before_the_limit(leaked: int, color: str) -> None:
    drawn = picture(replace(SCENE, history=(counts(0.0, leaked),)), UNICODE, 80)
    lines = lines_of(drawn, color=True)
    assert lines[3].startswith(f"asyncio tasks {leaked + 4:>4}  {color}█")


def test_beyond_the_limit_the_function_that_most_run_stands_out() -> None:
    lines = lines_of(picture(OVER, UNICODE, 80), color=True)
    assert [line.startswith("\x1b[1;31m") for line in lines[4:7]] == [True, False, False]
    below = lines_of(picture(SCENE, UNICODE, 80), color=True)
    assert not any(line.startswith("\x1b[1;31m") for line in below)


def test_a_kind_of_which_nothing_is_left_is_drawn() -> None:
    nothing = Counts(0.0, (Counted("thread", 0, 9, ()),))
    assert lines_of(picture(replace(SCENE, history=(nothing,)), ASCII, 60))[2:] == [
        "",
        "threads          0  ...............  limit 9",
    ]


def test_a_status_says_the_same_in_a_line() -> None:
    assert text(status(SCENE, ASCII)) == (
        "  7 s   asyncio tasks   20  ###############  limit 20   threads    1   16 orders"
    )
    assert text(status(OVER, UNICODE)) == (
        "  7 s   asyncio tasks   24  ███████████████  over the limit of 20"
        "   threads    1   16 orders"
    )


def test_a_detection_is_explained_by_its_largest_site() -> None:
    assert text(explain(DETECTED, UNICODE, 72)) == block(
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
    assert block(*lines_of(explain(hinted, UNICODE, 72))[-4:]) == block(
        "                 └ get               …/python3.11/asyncio/queues.py:158",
        "  hint         it waits it waits it waits it waits it waits it waits it",
        "               waits it waits it waits it waits for ever",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    )


def test_in_a_pipe_nothing_is_shortened() -> None:
    lines = lines_of(explain(DETECTED, ASCII, None))
    assert lines[1] == DETECTED.message
    assert lines[7:] == [
        "  waits at     keep_customer_posted  /srv/shop/orders.py:56",
        "               \\ next_update         /srv/shop/orders.py:61",
        "                 \\ get               /usr/local/lib/python3.11/asyncio/queues.py:158",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    ]


def test_one_thread_is_reported_as_one_thread() -> None:
    site = Site("pool.work", 1, 300.0, "a1b2c3d4e5f6")
    detected = Detected("thread", "threshold", "1 thread alive", 1, None, (site,), 1)
    assert lines_of(explain(detected, UNICODE, 80)) == [
        "LEAK DETECTED",
        "1 thread alive",
        "",
        "  what         1 thread",
        "  function     pool.work",
        "  oldest       alive for at least 5 min",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    ]


def test_something_that_awaits_the_leak_is_said() -> None:
    awaited = replace(DETECTED, sites=(replace(SITE, awaited=True),))
    assert "  awaited by   other code, which waits as well" in lines_of(
        explain(awaited, UNICODE, 80)
    )


def test_a_detection_without_sites_is_its_message() -> None:
    assert lines_of(explain(replace(DETECTED, sites=()), UNICODE, None)) == [
        "LEAK DETECTED",
        DETECTED.message,
    ]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Latin(io.StringIO):
    encoding = "latin-1"


def sized(columns: int, lines: int = 24, **environ: str) -> dict[str, str]:
    return {"TERM": "xterm", "COLUMNS": f"{columns}", "LINES": f"{lines}", **environ}


def seen(stream: Terminal, columns: int, lines: int = 24) -> list[str]:
    """Return what stands on the terminal in the end, down to the cursor."""
    terminal = pyte.Screen(columns, lines)
    pyte.Stream(terminal).feed(stream.getvalue().replace("\n", "\r\n"))
    return [line.rstrip() for line in terminal.display[: terminal.cursor.y]]


def test_a_terminal_is_drawn_over_in_place() -> None:
    stream = Terminal()
    scene = Scene("a shop", "1 order", 1.0)
    title = "a shop                                                  "
    with Screen(stream, sized(60, NO_COLOR="1")) as screen:
        screen.draw(scene)
        screen.draw(replace(scene, note="2 orders", elapsed_s=2.0))
        screen.write("the end")
        assert seen(stream, 60) == [f"{title}2 s", "2 orders", "the end"]
        screen.draw(scene)
    assert seen(stream, 60) == [f"{title}2 s", "2 orders", "the end", f"{title}1 s", "1 order"]


def test_the_cursor_is_back_also_after_an_interrupt() -> None:
    def interrupted(screen: Screen) -> None:
        with screen:
            screen.draw(Scene("a shop", "1 order", 1.0))
            assert hidden in stream.getvalue()
            raise KeyboardInterrupt

    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt):
        interrupted(Screen(stream, sized(60)))
    assert stream.getvalue().endswith(shown)
    assert seen(stream, 60)[1:] == ["1 order"]


def test_what_does_not_fit_is_not_drawn() -> None:
    stream = Terminal()
    with Screen(stream, sized(80, 5)) as screen:
        screen.draw(SCENE)
        screen.draw(OVER)
        assert text(picture(OVER, UNICODE, 80)).startswith(block(*seen(stream, 80, 6)))
        assert stream.getvalue().count("\n") < 2 * 5


@pytest.mark.parametrize(
    ("stream", "environ"),
    [
        (io.StringIO(), sized(80)),
        (Terminal(), {**sized(80), "TERM": "dumb"}),
        (Terminal(), sized(59)),
    ],
)
def test_what_is_no_terminal_gets_lines_alone(stream: io.StringIO, environ: dict[str, str]) -> None:
    with Screen(stream, environ) as screen:
        screen.draw(SCENE)
    assert (screen.live, screen.columns) == (False, None)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("stream", "environ", "is_colored"),
    [
        (Terminal(), sized(80), True),
        (Terminal(), sized(80, NO_COLOR="1"), False),
        (Terminal(), sized(80, NO_COLOR=""), True),
        (io.StringIO(), sized(80), False),
    ],
)
def test_color_is_for_terminals_unless_it_is_turned_off(
    stream: io.StringIO, environ: dict[str, str], is_colored: bool
) -> None:
    Screen(stream, environ).write(explain(DETECTED, UNICODE, 72))
    assert ("\x1b[1;31mLEAK" in stream.getvalue()) == is_colored
    assert "LEAK DETECTED" in stream.getvalue()


def test_a_console_that_can_show_ascii_alone_gets_no_more() -> None:
    assert [Screen(stream, sized(80)).marks for stream in (Terminal(), Latin())] == [UNICODE, ASCII]


def test_a_long_line_in_a_pipe_stays_one_line() -> None:
    stream = io.StringIO()
    Screen(stream, {}).write("x" * 300, explain(DETECTED, ASCII, None))
    assert stream.getvalue().splitlines()[:3] == ["x" * 300, "LEAK DETECTED", DETECTED.message]


def test_what_outlived_its_request_is_explained_with_the_request_and_where_it_was_created() -> None:
    site = replace(
        SITE,
        count=340,
        operation="POST /orders",
        origin=Place("shop.orders.place_order", "/srv/shop/orders.py", 30),
        stack=SITE.stack[:1],
    )
    message = "340 asyncio tasks shop.orders.keep_customer_posted outlived POST /orders"
    detected = Detected("asyncio_task", "outlived", message, 340, None, (site,), 1)
    assert text(explain(detected, UNICODE, None)) == block(
        "LEAK DETECTED",
        message,
        "",
        "  what         340 asyncio tasks",
        "  function     shop.orders.keep_customer_posted",
        "  request      POST /orders",
        "  oldest       pending for at least 7 s",
        "  awaited by   nothing",
        "  created in   shop.orders.place_order  /srv/shop/orders.py:30",
        "  waits at     keep_customer_posted  /srv/shop/orders.py:56",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    )


def test_what_was_destroyed_is_explained_with_its_coroutine() -> None:
    site = replace(SITE, count=3, awaited=None, stack=SITE.stack[:1])
    detected = Detected("destroyed_task", "destroyed", "3 destroyed", 3, None, (site,), 1)
    assert text(explain(detected, UNICODE, None)) == block(
        "LEAK DETECTED",
        "3 destroyed",
        "",
        "  what         3 asyncio tasks",
        "  function     shop.orders.keep_customer_posted",
        "  coroutine    keep_customer_posted  /srv/shop/orders.py:56",
        "  fingerprint  a1b2c3d4e5f6, the same on every host",
    )
