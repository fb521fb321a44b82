"""Leaks of libraries that are known: the table, which versions have them, what is said."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from known import verify
from otel_leaks.model import KINDS, Frame, Origin, Site, fingerprint
from otel_leaks.report import versions
from otel_leaks.report.hints import hint
from otel_leaks.report.hints.known import KNOWN, KnownLeak, is_affected

ROOT = Path(__file__).parents[2]
WATCHER = ("sse_starlette.sse._shutdown_watcher", "asyncio.tasks.sleep")
_NAMES = [f"{each.distribution} {each.since}" for each in KNOWN]


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in which distributions are looked for, and nowhere else."""
    versions.look_in([str(tmp_path)])
    yield tmp_path
    versions.look_in(None)


def install(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    versions.look_in([str(folder)])


def site(*functions: str, library: str = "", kind: str = "asyncio_task") -> Site:
    frame = Frame(library, "library.py", 1) if library else None
    origin = Origin("app.serve", "app.py", 1, library=frame)
    assert kind in KINDS
    return Site(kind, functions, 1, fingerprint(kind, functions), origin=origin)


@pytest.mark.parametrize("known", KNOWN, ids=_NAMES)
def test_an_entry_is_complete(known: KnownLeak) -> None:
    assert known.kind in KINDS
    assert re.fullmatch(r"[\w.-]+/[\w.-]+(#\d+)?", known.upstream)
    assert known.functions or known.created_by
    assert Version(known.since)
    # Either a version fixes it, or one says how far that has been looked at.
    last = known.fixed or known.seen
    assert bool(known.fixed) != bool(known.seen)
    assert Version(known.since) <= Version(last)
    assert is_affected(known, known.since)
    assert is_affected(known, last) == (known.fixed is None)


@pytest.mark.parametrize("known", KNOWN, ids=_NAMES)
def test_the_globs_of_an_entry_name_no_more_than_its_library(known: KnownLeak) -> None:
    own = known.distribution.lower().replace("-", "_").removeprefix("python_")
    globs = [*known.functions, *filter(None, (known.created_by,))]
    assert all("*" not in each.partition(".")[0] for each in globs)
    names = {each.partition(".")[0] for each in globs} - {"asyncio", "socketserver"}
    assert names in ({own}, {"pyrate_limiter"}, {"strawberry"}, {"websocket"})


def test_entries_are_in_order_and_each_has_a_program() -> None:
    named = [(each.distribution.lower(), each.since) for each in KNOWN]
    assert named == sorted(set(named))
    assert {each.distribution for each in KNOWN} == set(verify.CASES)
    programs = {path.stem for path in (ROOT / "tests/known/programs").glob("*.py")}
    assert programs == {each.program for each in verify.CASES.values()}


def test_the_page_has_all_entries() -> None:
    page = (ROOT / "docs/known-leaks.md").read_text("utf-8")
    row = re.compile(r"^\| `([^`]+)` \| (\w+) \| (\S+) \| ([^|]+?) \| \[([^]]+)\]", re.MULTILINE)
    assert row.findall(page) == [
        (
            each.distribution,
            each.kind,
            each.since,
            each.fixed or f"not as of {each.seen}",
            each.upstream,
        )
        for each in KNOWN
    ]


def test_a_site_of_an_affected_version_says_what_fixes_it(installed: Path) -> None:
    install(installed, "sse-starlette", "3.1.1")
    assert hint(site(*WATCHER)) == (
        "known: fixed in sse-starlette 3.1.2 (this is 3.1.1), upstream sysid/sse-starlette#152"
    )


@pytest.mark.parametrize("version", ["3.1.2", "4.0", "3.0.4", "no version"])
def test_a_version_that_does_not_leak_says_nothing(installed: Path, version: str) -> None:
    install(installed, "sse-starlette", version)
    assert not (hint(site(*WATCHER)) or "").startswith("known")


def test_a_library_that_is_not_found_says_nothing(installed: Path) -> None:
    assert list(installed.iterdir()) == []
    assert not (hint(site(*WATCHER)) or "").startswith("known")


def test_the_remains_of_an_interrupted_installation_hide_no_version(installed: Path) -> None:
    first, last = installed / "first", installed / "last"
    (first / "sse_starlette-3.1.0.dist-info").mkdir(parents=True)
    last.mkdir()
    install(last, "sse-starlette", "3.1.1")
    versions.look_in([str(first), str(last)])
    assert (hint(site(*WATCHER)) or "").startswith("known: fixed in sse-starlette 3.1.2")


def test_the_library_is_not_imported(installed: Path) -> None:
    install(installed, "zeroconf", "0.148.0")
    said = hint(site("x._Loop", "app.serve", library="zeroconf._core.start", kind="event_loop"))
    assert (said or "").startswith("known: fixed in zeroconf 0.149.0")
    assert "zeroconf" not in sys.modules


def test_a_leak_that_nothing_fixes_says_as_of_when(installed: Path) -> None:
    install(installed, "aioserial", "1.3.1")
    maker = "aioserial.aioserial.AioSerial.__init__"
    said = hint(site("concurrent.ThreadPoolExecutor", "app", library=maker, kind="thread_pool"))
    assert said == ("known: not fixed as of aioserial 1.3.1, upstream johannjhang/aioserial.py#27")


def test_what_another_library_created_is_not_known(installed: Path) -> None:
    install(installed, "fastapi-websocket-rpc", "0.1.22")
    maker = "fastapi_websocket_rpc.rpc_channel.RpcChannel.wait_for_response"
    of_it, of_other = (
        hint(site("asyncio.locks.Event.wait", library=library)) or "" for library in (maker, "x.y")
    )
    assert [each.startswith("known") for each in (of_it, of_other)] == [True, False]


def test_metadata_that_cant_be_read_says_nothing(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        def find_spec(self, *_: object) -> None:
            return None

        def find_distributions(self, *_: object) -> object:
            raise OSError(os.devnull)

    versions.look_in(None)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert not (hint(site(*WATCHER)) or "").startswith("known")


def test_where_nothing_compares_versions_nothing_is_said(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(installed, "sse-starlette", "3.1.1")
    monkeypatch.setitem(sys.modules, "packaging.version", None)
    assert not (hint(site(*WATCHER)) or "").startswith("known")


def test_versions_are_in_the_order_of_packaging() -> None:
    texts = [
        *("0.9", "1.0.dev1", "1.0a1.dev2", "1.0a1", "1.0b2", "1.0rc1", "1.0", "1.0.0", "1.0.post1"),
        *("1.0.post2.dev1", "1.0-3", "1.0.1", "1.10", "1.9", "2!0.1", "3.9.1.post1", "3.9.0.post2"),
        *("1.0+local", "v1.2", "1.0c2", "1.0alpha3", "1.0.dev0", "10", "1.0.post0"),
    ]
    for one in texts:
        for other in texts:
            # A local part does not count here: it is the application's own build.
            expected = Version(one.partition("+")[0]) < Version(other.partition("+")[0])
            keys = versions.key_of(one), versions.key_of(other)
            assert keys[0] is not None
            assert keys[1] is not None
            assert (keys[0] < keys[1], one, other) == (expected, one, other)


@pytest.mark.parametrize("text", ["", "unknown", "1..2", "1.0-x", "2026a!"])
def test_what_is_no_version_is_never_compared(text: str) -> None:
    assert versions.key_of(text) is None
