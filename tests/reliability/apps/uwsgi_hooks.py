"""An application that sets hooks of uWSGI's, before and after it is instrumented."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import uwsgi  # type: ignore  # noqa: PGH003 - the server's own module; stubs may be there or not

_called: list[str] = []


def before() -> None:
    _called.append("postfork")


uwsgi.post_fork_hook = before

import watched  # type: ignore[import-not-found]  # noqa: E402 - after the first hook

watched.note_our_log()
watched.instrument_in_code()

_earlier = uwsgi.post_fork_hook


def after() -> None:
    _earlier()
    _called.append("hook")


uwsgi.post_fork_hook = after


def application(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({**watched.state(), "hooks": _called}).encode()]
