"""
Pictures of the live page, of the real demo: ``make pictures`` writes them into ``docs/images``.

They are to be looked at: a test can't say whether a page can be read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import otel_leaks
from browser import chromium

IMAGES = Path(__file__).parents[2] / "docs" / "images"
OTEL_LEAKS = "import sys; from otel_leaks.cli import main; sys.exit(main())"
PYTHON = str(Path(os.__file__).parent)
SOURCE = Path(otel_leaks.__file__).parents[1]
# Whoever makes them has the files elsewhere.
AS_ELSEWHERE = """
pairs => {
  document.activeElement.blur();
  scrollTo(0, 0);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode())
    for (const [here, elsewhere] of pairs)
      texts.currentNode.data = texts.currentNode.data.replaceAll(here, elsewhere);
}
"""
SCREENS: dict[str, dict[str, Any]] = {
    "page-light": {"viewport": {"width": 1280, "height": 1280}, "color_scheme": "light"},
    "page-dark": {"viewport": {"width": 1280, "height": 1280}, "color_scheme": "dark"},
    "page-phone": {"viewport": {"width": 390, "height": 1400}, "color_scheme": "light"},
}


def main() -> None:
    path = chromium.executable()
    if path is None:
        raise SystemExit(f"It {chromium.HOW_TO_GET}.")
    IMAGES.mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", OTEL_LEAKS, "demo", "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            address = re.search(r"http://\S+", demo.stdout.readline())
            assert address is not None
            with chromium.browser(path) as browser:
                _take(browser, address[0])
        finally:
            demo.terminate()


def _take(browser: Any, address: str) -> None:
    pages = {name: browser.new_page(**options) for name, options in SCREENS.items()}
    for page in pages.values():
        page.set_default_timeout(chromium.TIMEOUT_MS)
        page.goto(address)
    for name, page in pages.items():
        for evidence in ("threshold", "outlived", "destroyed"):
            page.locator("#finding-list strong", has_text=evidence).first.wait_for()
        page.locator("#finding-list button", has_text="threshold").first.click()
        page.locator(".icicle").wait_for()
        page.evaluate(
            AS_ELSEWHERE,
            [[str(SOURCE), "/srv"], [str(Path(os.__file__).parent), "/usr/lib/python3"]],
        )
        file = IMAGES / f"{name}.png"
        page.screenshot(path=file, animations="disabled")
        print(f"{file.relative_to(Path.cwd())}: {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
