"""
What to ignore, as data.

An ignore is a value: a rule, a pattern, and a reason. The built-in ignores and the user's are
in one list and are matched by the same code. In text, as in an environment variable, an ignore
is written as the call that creates it:
``ignore_thread("kafka-*", reason="owned by the client")``.
"""

from __future__ import annotations

import ast
import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, get_args

from otel_leaks.errors import (
    FingerprintSchemeError,
    IgnoreSyntaxError,
    InvalidTypeError,
    InvalidValueError,
)
from otel_leaks.model import FINGERPRINT_SCHEME, Kind, Origin, scheme_of

# Not date.today(), which asks the module: a test may replace or freeze that clock.
_now = partial(time.time)

__all__ = [
    "BUILT_IN",
    "IN_PRODUCTION",
    "Ignore",
    "Ignores",
    "ignore_any_function",
    "ignore_created_by",
    "ignore_fingerprint",
    "ignore_module",
    "ignore_task",
    "ignore_thread",
    "ignore_top_function",
    "parse",
]

Rule = Literal[
    "top_function",
    "any_function",
    "created_by",
    "module",
    "thread",
    "task",
    "fingerprint",
    "current",  # Made by testing.ignore_current(): it holds objects, not a pattern.
]
_RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True)
class Ignore:
    """
    A rule that excludes objects from the census.

    Create one with the function of its rule, such as ``ignore_thread("name-*")``. Patterns are
    case-sensitive shell globs (``*``, ``?``, ``[a-z]``).
    """

    rule: Rule
    pattern: str
    reason: str = ""
    until: dt.date | None = None
    """The last day on which it holds; None for no limit."""

    def __post_init__(self) -> None:
        _check_text(self.call, "pattern", self.pattern)
        if not self.pattern:
            raise InvalidValueError(f'{self.call} needs a pattern; write it as {self.call}("name")')
        _check_text(self.call, "reason", self.reason)
        if self.rule == "fingerprint" and scheme_of(self.pattern) != FINGERPRINT_SCHEME:
            raise FingerprintSchemeError(
                f"{self.call} takes fingerprints of scheme {FINGERPRINT_SCHEME}, "
                f"got {self.pattern!r}, which would match nothing; copy it again from the line "
                "`ignore` of a message of this version"
            )
        if self.until is not None and type(self.until) is not dt.date:
            raise InvalidTypeError(
                f"{self.call}: until must be a datetime.date or a str such as 2027-01-31, "
                f"got {self.until!r}"
            )

    @property
    def call(self) -> str:
        """The name of the function that creates it."""
        return f"ignore_{self.rule}"

    def __str__(self) -> str:
        words = [_quoted(self.pattern)]
        if self.reason:
            words.append(f"reason={_quoted(self.reason)}")
        if self.until is not None:
            words.append(f'until="{self.until.isoformat()}"')
        return f"{self.call}({', '.join(words)})"


def ignore_top_function(
    pattern: str, *, reason: str = "", until: dt.date | str | None = None
) -> Ignore:
    """
    Ignore what has this function (``pkg.mod.func``) as its innermost frame.

    .. versionadded:: 0.1
    """
    return _ignore("top_function", pattern, reason, until)


def ignore_any_function(
    pattern: str, *, reason: str = "", until: dt.date | str | None = None
) -> Ignore:
    """
    Ignore what has this function (``pkg.mod.func``) anywhere in its stack.

    .. versionadded:: 0.1
    """
    return _ignore("any_function", pattern, reason, until)


def ignore_created_by(
    pattern: str, *, reason: str = "", until: dt.date | str | None = None
) -> Ignore:
    """
    Ignore what this function (``pkg.mod.func``) created.

    .. versionadded:: 0.1
    """
    return _ignore("created_by", pattern, reason, until)


def ignore_module(pattern: str, *, reason: str = "", until: dt.date | str | None = None) -> Ignore:
    """
    Ignore what runs a function of this module: a thread's target, a task's coroutine.

    ``pkg.*`` matches ``pkg`` and everything below it. An object of the application that merely
    waits inside that module is not ignored.

    .. versionadded:: 0.1
    """
    return _ignore("module", pattern, reason, until)


def ignore_thread(pattern: str, *, reason: str = "", until: dt.date | str | None = None) -> Ignore:
    """
    Ignore threads by their name.

    >>> print(ignore_thread("kafka-*", reason="owned by the client", until="2027-01-31"))
    ignore_thread("kafka-*", reason="owned by the client", until="2027-01-31")

    .. versionadded:: 0.1
    """
    return _ignore("thread", pattern, reason, until)


def ignore_task(pattern: str, *, reason: str = "", until: dt.date | str | None = None) -> Ignore:
    """
    Ignore asyncio tasks by their name. In production this makes a census more expensive.

    .. versionadded:: 0.1
    """
    return _ignore("task", pattern, reason, until)


def ignore_fingerprint(
    pattern: str, *, reason: str = "", until: dt.date | str | None = None
) -> Ignore:
    """
    Ignore a site by its fingerprint, which a message has in its line ``ignore``.

    .. versionadded:: 0.1
    """
    return _ignore("fingerprint", pattern, reason, until)


def _quoted(text: str) -> str:
    plain = text.isprintable() and '"' not in text and "\\" not in text
    return f'"{text}"' if plain else repr(text)


def _ignore(rule: Rule, pattern: str, reason: str, until: dt.date | str | None) -> Ignore:
    if isinstance(until, str):
        try:
            until = dt.date.fromisoformat(until)
        except ValueError:
            raise InvalidValueError(
                f"ignore_{rule}: until must be a date such as 2027-01-31, got {until!r}"
            ) from None
    return Ignore(rule, pattern, reason, until)


def _check_text(call: str, name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidTypeError(f"{call}: {name} must be a str, got {value!r}")


_NAMED: Mapping[Kind, Rule] = {
    "thread": "thread",
    "asyncio_task": "task",
    "destroyed_task": "task",
}

_CALLS: Mapping[str, Callable[..., Ignore]] = {
    each.__name__: each
    for each in (
        ignore_top_function,
        ignore_any_function,
        ignore_created_by,
        ignore_module,
        ignore_thread,
        ignore_task,
        ignore_fingerprint,
    )
}

IN_PRODUCTION: tuple[Ignore, ...] = (
    ignore_any_function(
        "anyio._backends._asyncio._shutdown_process_pool_on_exit",
        reason="ends the idle workers of anyio.to_process with their loop",
    ),
)
"""
Objects that production does not count, besides the threads of this package and those of the SDK's
providers in use: both are known by identity, not by name.
"""

# Tools that surround a test leave no object that shows what belongs to them, but the code that they
# run does. Objects of a tool missing here count if a test or a fixture created them.
BUILT_IN: tuple[Ignore, ...] = (
    *IN_PRODUCTION,
    ignore_module("execnet.*", reason="pytest-xdist talks to its workers"),
    ignore_module("pydevd.*", reason="an attached debugger"),
    ignore_module("_pydevd_bundle.*", reason="an attached debugger"),
    ignore_module("debugpy.*", reason="an attached debugger"),
    ignore_module("pytest_timeout", reason="pytest-timeout watches the test"),
    ignore_any_function(
        "unittest.async_case.IsolatedAsyncioTestCase._asyncioLoopRunner",
        reason="unittest's own runner of async tests, on 3.10",
    ),
    ignore_any_function(
        "anyio._backends._asyncio.TestRunner._run_tests_and_fixtures",
        reason="the anyio plugin's own runner of tests",
    ),
)
"""What tests do not count: the same as production, and the objects of test tools."""


def parse(text: str) -> tuple[Ignore, ...]:
    """
    Read ignores from text.

    Args:
        text: Calls, separated by commas or line breaks:
            ``ignore_thread("a-*"), ignore_module("pkg.*", reason="why")``.

    Returns:
        The ignores, in order; none for an empty text.

    >>> [each.pattern for each in parse('ignore_thread("a-*"), ignore_module("pkg.*")')]
    ['a-*', 'pkg.*']

    Raises:
        IgnoreSyntaxError: The text is not such a list, or names an unknown ignore.
    """
    # Inside brackets a line break separates nothing, so a comma is put in its place.
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    source = "[" + ",".join(line for line in lines if line) + "]"
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # The last two are the parser's words for "nested too deeply".
        raise IgnoreSyntaxError(_rule_of(text)) from None
    if not isinstance(tree, ast.List):
        # A text that closes our bracket and continues: [...] + [...].
        raise IgnoreSyntaxError(_rule_of(text))
    return tuple(_call(node, text) for node in tree.elts)


def _call(node: ast.expr, text: str) -> Ignore:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise IgnoreSyntaxError(_rule_of(text))
    make = _CALLS.get(node.func.id)
    if make is None:
        raise IgnoreSyntaxError(f"unknown ignore {node.func.id!r}; known are {', '.join(_CALLS)}")
    try:
        args = [ast.literal_eval(each) for each in node.args]
        kwargs = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
        return make(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise IgnoreSyntaxError(f"{ast.unparse(node)}: {error}") from None
    except (RecursionError, MemoryError):
        raise IgnoreSyntaxError(_rule_of(text)) from None


def _rule_of(text: str) -> str:
    return (
        'ignores are written as calls, such as ignore_thread("name-*"), separated by commas, '
        f"got {text!r}; known are {', '.join(_CALLS)}"
    )


class Ignores:
    """
    A list of ignores, prepared for matching.

    Args:
        ignores: In the order in which they are tried; the first that matches applies.
        today: The day that ``until`` is compared with. Expired ignores have no
            effect and are listed in ``expired``.
    """

    def __init__(
        self, ignores: Iterable[Ignore] = BUILT_IN, *, today: dt.date | None = None
    ) -> None:
        day = today or dt.datetime.fromtimestamp(_now()).astimezone().date()
        every = tuple(ignores)
        self.expired = tuple(i for i in every if i.until is not None and i.until < day)
        held = [i for i in every if i not in self.expired]
        self._by_rule: dict[Rule, tuple[Ignore, ...]] = {
            rule: tuple(i for i in held if i.rule == rule) for rule in _RULES
        }

    @property
    def by_task_name(self) -> bool:
        """Whether the name of each task is needed."""
        return bool(self._by_rule["task"])

    def name(self, kind: Kind, name: str) -> Ignore | None:
        """Return the ignore that matches an object of *kind* by its name."""
        rule: Rule | None = _NAMED.get(kind)
        if rule is None:
            return None
        return next((i for i in self._by_rule[rule] if fnmatchcase(name, i.pattern)), None)

    def site(
        self,
        functions: tuple[str, ...],
        fingerprint: str,
        origin: Origin | None = None,
        *,
        outer: tuple[str, ...] = (),
    ) -> Ignore | None:
        """
        Return the ignore that matches a site.

        Args:
            functions: Of the site, outermost first.
            fingerprint: Of the site.
            origin: Where its objects were created.
            outer: The functions further out, which are not part of the name of the site.
        """
        subjects: tuple[tuple[Rule, tuple[str, ...]], ...] = (
            ("fingerprint", (fingerprint,)),
            ("top_function", functions[-1:]),
            ("any_function", (*outer, *functions)),
            ("created_by", _creators(origin) if origin is not None else ()),
            ("module", tuple(m for each in (*outer[:1], functions[0]) for m in _modules(each))),
        )
        for rule, texts in subjects:
            for i in self._by_rule[rule]:
                if any(_takes(i, text) for text in texts):
                    return i
        return None


def _creators(origin: Origin) -> tuple[str, ...]:
    library = origin.library
    return (origin.function,) if library is None else (origin.function, library.function)


def _takes(ignore: Ignore, text: str) -> bool:
    bare = ignore.pattern.removesuffix(".*") if ignore.rule == "module" else ignore.pattern
    return fnmatchcase(text, ignore.pattern) or fnmatchcase(text, bare)


def _modules(function: str) -> Iterator[str]:
    """Yield the possible modules of a qualified name, which does not show where the module ends."""
    prefix = function
    while "." in prefix:
        prefix = prefix.rpartition(".")[0]
        yield prefix
