"""``verify_none`` raises if something was left behind, ``find`` returns it."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, final

from otel_leaks.errors import InvalidTypeError, LeaksFound, UnusedIgnoreWarning
from otel_leaks.ignores import Ignore
from otel_leaks.runtime import native
from otel_leaks.testing.checks import BeforeCancelling, Check, again
from otel_leaks.testing.finished import with_finished
from otel_leaks.testing.grace import Grace
from otel_leaks.testing.holding import with_holders
from otel_leaks.testing.looks import Held, checked, is_in_loop, shared_taker
from otel_leaks.testing.proving import proved
from otel_leaks.testing.report import Report

if TYPE_CHECKING:
    from typing_extensions import Self

    from otel_leaks.origins.scopes import Scope

__all__ = ["add_note", "find", "verify_none"]

_PACKAGE = __name__.rpartition(".")[0]

_F = TypeVar("_F", bound=Callable[..., Any])


def find(*ignores: Ignore, grace: Grace = Grace(), why: bool = False) -> Report:
    """
    Return everything alive that is not ignored. Does not raise if something is.

    The calling task, its thread and the main thread are not leaks.

    Args:
        ignores: What to ignore.
        grace: How often to check until nothing is left. Inside a running loop it checks
            once, because waiting here would block the loop.
        why: Whether to look for what holds each object: ``site.sample.held_by``. This walks the
            heap, for up to half a second of CPU.

    Returns:
        A report, false if nothing was found. Its ``finished`` has the finished tasks that something
        still references, by function; they are not alive, so they do not make it true.

    Raises:
        InvalidTypeError: An ignore or *grace* has another type.

    >>> import threading
    >>> release = threading.Event()
    >>> threading.Thread(target=release.wait, name="pump").start()
    >>> [site.sample.name for site in find(grace=Grace(attempts=1)) if site.sample]
    ['pump']
    >>> release.set()

    .. versionadded:: 0.1
    """
    checked(ignores, grace)
    held = Held(ignores)
    shared_taker.open()
    try:
        report = held.look(None)
        if not is_in_loop():
            for delay_s in grace.delays_s():
                if not report:
                    break
                native.sleep(delay_s)
                report = held.look(None, again(report)).with_hidden(report)
        report, kept = with_finished(proved(report), held)
        if why:
            report = with_holders(report, finished=kept, is_asked=True)
    finally:
        shared_taker.close()
    warn(held.unused())
    return report


@final
class verify_none:  # noqa: N801 - a verb, as contextlib's own
    """
    Raise if something that was created inside is left behind.

    Works as ``with``, ``async with``, and as a decorator of def and async def, where each
    concurrent call is checked by itself. A clean block causes no wait. While ``async with``
    waits for objects to end, the loop runs.

    Args:
        ignores: What to ignore.
        grace: How often to check until nothing is left.
        before_check: Called at the end, before the first check; may return an awaitable in
            ``async with``.

    Raises:
        LeaksFound: Something was left behind. If the body itself raises, its exception
            propagates, with the leaks as a note.
        InvalidTypeError: An argument has another type.

    >>> import asyncio
    >>> @verify_none()
    ... async def answer() -> int:
    ...     return await asyncio.create_task(asyncio.sleep(0, 42))
    >>> asyncio.run(answer())
    42

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        *ignores: Ignore,
        grace: Grace = Grace(),
        before_check: Callable[[], Any] | None = None,
    ) -> None:
        checked(ignores, grace)
        if before_check is not None and not callable(before_check):
            raise InvalidTypeError(f"before_check must be callable, got {before_check!r}")
        self._ignores = ignores
        self._grace = grace
        self._before_check = before_check
        self._entered: list[
            tuple[Scope, Any, tuple[Callable[[], None], ...], BeforeCancelling]
        ] = []
        self._warns = True

    def __call__(self, function: _F) -> _F:
        """Return *function* wrapped, so that each call of it is verified by itself."""

        def again() -> verify_none:
            made = verify_none(*self._ignores, grace=self._grace, before_check=self._before_check)
            made._warns = self._warns
            return made

        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise InvalidTypeError(
                f"@verify_none() takes def and async def, and {function.__qualname__} is a "
                "generator; use `with verify_none():` inside of it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def verified_async(*args: Any, **kwargs: Any) -> Any:
                async with again():
                    return await function(*args, **kwargs)

            return verified_async  # type: ignore[return-value]

        @functools.wraps(function)
        def verified(*args: Any, **kwargs: Any) -> Any:
            with again():
                return function(*args, **kwargs)

        return verified  # type: ignore[return-value]

    def __enter__(self) -> Self:
        shared_taker.open()
        from otel_leaks.origins.recorder import current_scope, starts
        from otel_leaks.origins.scopes import Scope

        scope = Scope(parent=current_scope())
        runners = BeforeCancelling(scope, self._ignores, self._grace)
        starts.cancelling[scope] = runners.look
        unhook, end_noting = starts.hook_generators(), starts.note_coroutines()
        self._entered.append((scope, scope.enter(), (unhook, end_noting), runners))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        check = self._left()
        try:
            self._before(error)
            for delay_s in check.pauses(self._grace):
                if is_in_loop():
                    break  # Waiting here would keep the loop from ending anything.
                native.sleep(delay_s)
        finally:
            shared_taker.close()
        self._report(check, error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from otel_leaks.runtime.driving import pause_inside

        check = self._left()
        try:
            done = self._before(error)
            # A coroutine that is being closed can't wait for anything.
            if not isinstance(error, GeneratorExit):
                if inspect.isawaitable(done):
                    await done
                for delay_s in check.pauses(self._grace):
                    await pause_inside(delay_s)
        finally:
            shared_taker.close()
        self._report(check, error)

    def _left(self) -> Check:
        """Leave the current block; one object may serve several at a time."""
        from otel_leaks.origins.recorder import current_scope, starts

        current = current_scope()
        entered = next((e for e in self._entered if e[0] is current), self._entered[-1])
        self._entered.remove(entered)
        scope, token, ends, runners = entered
        scope.leave(token)
        for end in ends:
            end()
        starts.cancelling.pop(scope, None)
        return Check(scope, self._ignores, runners=runners)

    def _before(self, error: BaseException | None) -> Any:
        if self._before_check is None:
            return None
        try:
            return self._before_check()
        except Exception as raised:
            if error is None:
                raise
            add_note(error, f"before_check raised {raised!r}")

    def _report(self, check: Check, error: BaseException | None) -> None:
        check.conclude()
        unused = check.unused() if self._warns else []
        if error is not None:
            if check.report:
                add_note(error, str(check.report))
        elif check.report:
            raise LeaksFound(check.report, unused)
        else:
            warn(unused)


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, as 3.11 and later do."""
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:
        vars(error)["__notes__"] = [*getattr(error, "__notes__", ()), note]


def warn(texts: list[str]) -> None:
    """Warn at the line outside of this package that called it."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    for text in texts:
        warnings.warn(text, UnusedIgnoreWarning, stacklevel=level)
