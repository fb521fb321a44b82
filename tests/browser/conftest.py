from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import pytest

from browser import chromium

Open = Callable[..., Any]


@pytest.fixture(scope="session")
def launched() -> Iterator[Any]:
    """A browser for all tests of a worker."""
    if find_spec("playwright") is None:
        pytest.skip("needs Playwright: make browser installs it")
    path = chromium.executable()
    if path is None:
        pytest.skip(chromium.HOW_TO_GET)
    with chromium.browser(path) as browser:
        yield browser


@pytest.fixture
def opened(launched: Any) -> Iterator[Open]:
    """Opens a page of a browser of its own, which may use the clipboard and must log no error."""
    with ExitStack() as stack:
        problems: list[str] = []

        def open_page(address: str, *, width: int = 1280, height: int = 900, **options: Any) -> Any:
            context = launched.new_context(viewport={"width": width, "height": height}, **options)
            stack.callback(context.close)
            context.grant_permissions(["clipboard-read", "clipboard-write"])
            context.set_default_timeout(chromium.TIMEOUT_MS)
            page = context.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
            # A connection that is refused is what some tests are about.
            page.on(
                "console",
                lambda said: (
                    problems.append(said.text)
                    if said.type == "error" and "net::ERR" not in said.text
                    else None
                ),
            )
            page.goto(address)
            return page

        yield open_page
        assert problems == []
