"""
The pytest plugin: ``pytest --leaks``.

pytest imports this module in every run of every project that has the package installed. It
therefore works with any pytest from 6.2 on, imports nothing of the engine and patches nothing.
With ``--leaks`` on, ``session`` does the work.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

if TYPE_CHECKING:
    from otel_leaks.pytest_plugin.session import LeaksPlugin

MODES = ("fail", "warn", "off")
PYTEST, PLUGGY = (7, 4), (1, 2)
"""The versions that --leaks needs: pluggy supports plain wrappers as hooks from 1.2 on."""

_PLUGIN = "_otel_leaks"
"""The attribute of a config; pytest has no stash before 7.0."""


Place = Literal["section", "log", "file", "test"]
"""
Where a format is written: the summary's own section, for leaks that no failure shows; the lines
below it; the file of ``--leaks-NAME``; or a property of each test that leaks.
"""


class Format(NamedTuple):
    """How leaks are written: a module of ``otel_leaks.report.formats``, and its destination."""

    name: str
    """The name of the module."""
    place: Place
    says: str
    """The help text of its option."""
    variable: str | None = None
    """An environment variable that is ``true`` where the format is wanted; None for always."""

    @property
    def option(self) -> str:
        """The option that writes the format to a file."""
        return f"--leaks-{self.name}"


FORMATS: tuple[Format, ...] = (
    Format("text", "section", "write leaks for people"),
    Format("github", "log", "show leaks beside the code", variable="GITHUB_ACTIONS"),
    Format("json", "file", "write all leaks to FILE as JSON"),
    Format("junit", "test", "write leaks to JUnit XML, as a property of their test"),
)


def formats_for(place: Place) -> Iterator[Format]:
    """Yield the formats that are written to *place* in this environment."""
    for each in FORMATS:
        is_wanted = each.variable is None or os.environ.get(each.variable) == "true"
        if each.place == place and is_wanted:
            yield each


class _Mode(argparse.Action):
    """``--leaks`` alone means fail, even where a path follows; see _keep_paths."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's own signature
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002 - argparse's own signature
    ) -> None:
        if values not in MODES and not _is_path(values):
            raise argparse.ArgumentError(
                self, f"must be one of {', '.join(MODES)}, got {values!r}; --leaks alone means fail"
            )
        setattr(namespace, self.dest, values if values in MODES else "fail")


def _is_path(word: str) -> bool:
    return os.path.exists(word.partition("::")[0])  # noqa: PTH110 - a word, not yet a path


def _keep_paths(args: list[str], namespace: argparse.Namespace) -> None:
    """
    Keep a path after ``--leaks`` a path, before the arguments are finally parsed.

    argparse takes it for the option's value. The option therefore gets a value in *args*, and
    the path is added to those of *namespace*, where pytest looks for conftest files.
    """
    for i, (word, following) in enumerate(itertools.pairwise(args)):
        if word == "--":
            return
        if word == "--leaks" and following not in MODES and _is_path(following):
            args[i] = "--leaks=fail"
            namespace.file_or_dir = [*(namespace.file_or_dir or ()), following]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flags and the ini settings."""
    group = parser.getgroup("leaks", "leaked threads, asyncio tasks and others (otel-leaks)")
    group.addoption(
        "--leaks",
        action=_Mode,
        nargs="?",
        const="fail",
        default=None,
        metavar="fail|warn|off",
        help="what happens if a test leaves something behind; --leaks alone means fail",
    )
    group.addoption(
        "--leaks-baseline",
        metavar="FILE",
        default=None,
        help="ignore leaks whose fingerprints are in FILE, fail on new ones, report stale ones",
    )
    group.addoption(
        "--leaks-baseline-update",
        action="store_true",
        help="write the leaks of this run to the file of --leaks-baseline",
    )
    for each in formats_for("file"):
        group.addoption(each.option, metavar="FILE", default=None, help=each.says)
    group.addoption(
        "--leaks-selftest",
        action="store_true",
        help="create a leak of each kind first, and fail if one is not found",
    )
    parser.addini("leaks", "the mode, as for --leaks: fail, warn or off", default="off")
    parser.addini(
        "leaks_ignore",
        'ignores for all tests, one per line: ignore_thread("name-*", reason="why")',
        type="linelist",
        default=[],
    )
    parser.addini(
        "leaks_grace",
        "how long objects may take to end: attempts and max_delay_s, such as 20 0.1",
        default="",
    )
    parser.addini(
        "leaks_blocking",
        "seconds for which a test may block its event loop, such as 0.1; empty for any time",
        default="",
    )
    parser.addini(
        "leaks_run_on_failure",
        "check failed tests as well",
        type="bool",
        default=False,
    )
    parser.addini(
        "leaks_coroutines",
        "fail a test with coroutines that were never awaited, which Python only warns of",
        type="bool",
        default=False,
    )
    parser.addini(
        "leaks_cleanup",
        "end what a test leaked once it has failed, so that it does not affect the tests after it",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and, with ``--leaks`` on, the plugin."""
    config.addinivalue_line(
        "markers",
        "leaks(ignore=..., grace=..., blocking=...): what this test may leave behind, how long "
        "that may take, and for how many seconds it may block its event loop",
    )
    config.addinivalue_line(
        "markers", "allow_leaks(reason=...): this test may leave anything behind, for this reason"
    )
    mode = _mode(config, config.getoption("--leaks"))
    if config.option.collectonly:
        return  # No test runs, so none can leak.
    if mode != "off":
        plugin = getattr(config, _PLUGIN, None)
        if plugin is None:
            missing = _missing()
            if missing:
                raise pytest.UsageError(missing)
            # The package was loaded late, by pytest_plugins of a conftest file.
            plugin = _begin(config, mode)
        with Importing():
            plugin.configure()
        config.pluginmanager.register(plugin, "otel_leaks_active")
    elif config.getoption("--leaks-selftest") or config.getoption("--leaks-baseline-update"):
        raise pytest.UsageError("--leaks-selftest and --leaks-baseline-update also need --leaks")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Start recording before conftest files are imported, which may leak as well."""
    _keep_paths(args, early_config.known_args_namespace)
    mode = _mode(early_config, getattr(early_config.known_args_namespace, "leaks", None))
    is_collecting = getattr(early_config.known_args_namespace, "collectonly", False)
    if mode != "off" and not is_collecting and not _missing():
        _begin(early_config, mode)


class Importing:
    """
    Imports the modules of this package as Python does, without pytest's import hook.

    The hook treats each module as a test and caches bytecode of its own. Where the package's
    directory is not writable it can't cache, and compiles all of them in each run.
    """

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        """Find a module of this package on the package's own path."""
        if not name.startswith("otel_leaks."):
            return None
        return PathFinder.find_spec(name, path, target)


def _mode(config: pytest.Config, given: str | None) -> str:
    mode: str = given or config.getini("leaks")
    if mode not in MODES:
        raise pytest.UsageError(f"ini leaks must be one of {', '.join(MODES)}, got {mode!r}")
    return mode


def _missing() -> str | None:
    """Return which versions --leaks needs here; None when pytest and pluggy are new enough."""
    import pluggy

    here = (("pytest", pytest.__version__, PYTEST), ("pluggy", pluggy.__version__, PLUGGY))
    if all(_numbers(version) >= least for _, version, least in here):
        return None
    needs = " and ".join(f"{name} {'.'.join(map(str, least))}" for name, _, least in here)
    has = " and ".join(f"{name} {version}" for name, version, _ in here)
    return f"--leaks needs {needs} or newer, found {has}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _begin(config: pytest.Config, mode: str) -> LeaksPlugin:
    with Importing():
        from otel_leaks.pytest_plugin.session import LeaksPlugin

        plugin = LeaksPlugin(config, mode)
    setattr(config, _PLUGIN, plugin)
    # Added first, so it runs last: after pytest_unconfigure and the clean-ups of others.
    config.add_cleanup(plugin.conclude)
    return plugin
