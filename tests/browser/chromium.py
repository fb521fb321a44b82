"""Chromium, as Debian has it, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.once import one_at_a_time

__all__ = ["HOW_TO_GET", "TIMEOUT_MS", "browser", "executable", "expect"]

HOW_TO_GET = "needs Chromium: apt-get install chromium, or name one in OTEL_LEAKS_CHROMIUM"
TIMEOUT_MS = 120_000
"""For whatever a page is waited for, on a machine with other work."""


def executable(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return a Chromium, None where there is none; CI gets one."""
    named = environ.get("OTEL_LEAKS_CHROMIUM")
    if named:
        return named
    found = _found()
    if found is None and environ.get("CI") and shutil.which("apt-get") and os.geteuid() == 0:
        with one_at_a_time(Path.home() / ".cache" / "otel-leaks"):
            if (found := _found()) is None:
                _install()
                found = _found()
    return found


def expect(locator: Any) -> Any:
    """Return Playwright's own, which waits; the module is there only where a browser is."""
    from playwright.sync_api import expect as expected

    expected.set_options(timeout=TIMEOUT_MS)
    return expected(locator)


def _found() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


def _install() -> None:
    install = ["apt-get", "install", "--yes", "--no-install-recommends"]
    for command in (["apt-get", "update"], [*install, "chromium", "fonts-dejavu-core"]):
        subprocess.run(
            command,
            check=False,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )


@contextmanager
def browser(path: str) -> Iterator[Any]:
    """Start a headless browser."""
    from playwright.sync_api import sync_playwright

    # Root, as in a container, may have no sandbox; /dev/shm is small there.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path, args=arguments, timeout=TIMEOUT_MS
        )
        try:
            yield launched
        finally:
            launched.close()
