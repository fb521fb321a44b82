"""The cause that blocked an event loop."""

from __future__ import annotations

from collections.abc import Mapping

from otel_leaks.model import Site

_OF_TEXT: Mapping[str, str] = {
    "<garbage collection>": (
        "call gc.freeze() when the application has started, so that what stays is not gone "
        "through again, or keep fewer objects"
    ),
    "<waiting for the GIL>": "run what computes in other threads in another process",
    "<waiting for a CPU>": "give the process more CPU, or run fewer processes on its machine",
    "<many callbacks>": "let fewer things happen at once on one loop, or run more processes",
}
"""By the text in place of a function."""


def hint(site: Site, _own: Site) -> str | None:
    """Recognize a call that blocks a loop; a loop that was left open has no stack."""
    if site.kind != "event_loop" or site.sample is None or not site.sample.stack:
        return None
    return _OF_TEXT.get(
        site.function,
        "await something asynchronous in its place, or run it in a thread: asyncio.to_thread()",
    )
