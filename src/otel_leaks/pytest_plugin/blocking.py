"""Fails tests that block their event loop, if a limit is set."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from otel_leaks.pytest_plugin.options import Options
from otel_leaks.pytest_plugin.outcomes import Outcomes, is_failure, raised_in_unittest

if TYPE_CHECKING:
    from otel_leaks.testing.blocking import Block

__all__ = ["BlockingTests"]

MOST_FRAMES = 20
"""Limit of frames of a stack in a message, of which the innermost are kept."""


class BlockingTests:
    """
    Fails a test that blocks its event loop for longer than its limit.

    Args:
        options: The settings of the ini file and of markers.
        outcomes: Fails the test.
    """

    def __init__(self, options: Options, outcomes: Outcomes) -> None:
        self._options = options
        self._outcomes = outcomes

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time the turns of the loops that run during the call of a test."""
        limit_s = self._options.of_item(item).blocking_s
        if limit_s is None:
            return (yield)
        from otel_leaks.testing.blocking import Blocking

        blocking = Blocking(limit_s)
        blocking.open()
        try:
            result = yield
        except BaseException as error:
            self._judge(item, blocking.close(), limit_s, error)
            raise
        self._judge(item, blocking.close(), limit_s, None)
        return result

    def _judge(
        self,
        item: pytest.Item,
        blocks: list[Block],
        limit_s: float,
        raised: BaseException | None,
    ) -> None:
        raised = raised or raised_in_unittest(item)
        has_failed = is_failure(raised) and not self._outcomes.raised(item, raised)
        if blocks and (self._options.on_failure or not has_failed):
            self._outcomes.fail(item, _text(blocks, limit_s), raised)


def _text(blocks: list[Block], limit_s: float) -> str:
    from otel_leaks.report.text import stack_text

    block = blocks[0]
    times = f" {len(blocks)} times, at most" if len(blocks) > 1 else ""
    task = f", in task {block.task}" if block.task is not None else ""
    at = block.at
    return (
        f"the event loop was blocked{times} for {block.took_s:.2f} s, longer than the "
        f"{limit_s:g} s allowed, by {at.function} ({at.file}:{at.line}){task}:\n"
        f"{stack_text(block.stack, max_frames=MOST_FRAMES)}\n"
        "await something asynchronous in its place, or run it in a thread: asyncio.to_thread()"
    )
