"""The files that the page is made of."""

from __future__ import annotations

from importlib import resources

__all__ = ["FILES", "media_type", "read"]

FILES = (
    "index.html",
    "style.css",
    "icon.svg",
    "main.js",
    "state.js",
    "stream.js",
    "recorded.js",
    "dom.js",
    "words.js",
    "processes.js",
    "charts.js",
    "findings.js",
    "detail.js",
    "icicle.js",
    "waiting.js",
    "vendor/uPlot.esm.js",
    "vendor/uPlot.min.css",
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def read(name: str) -> bytes:
    """Return the contents of one of ``FILES``."""
    path = resources.files("otel_leaks.viewer") / "static"
    for part in name.split("/"):
        path /= part
    return path.read_bytes()


def media_type(name: str) -> str:
    """Return the media type of one of ``FILES``."""
    return _TYPES[name.rpartition(".")[2]]
