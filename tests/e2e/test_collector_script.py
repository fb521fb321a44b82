"""The script that finds or builds a collector, as far as it goes without Go."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.collector import VARIABLE, CollectorMissing, cached, collector


def silent(text: str) -> None:
    raise AssertionError(f"nothing is built, yet it says: {text}")


def test_a_named_collector_is_taken(tmp_path: Path) -> None:
    assert collector({VARIABLE: sys.executable}, say=silent) == Path(sys.executable)


def test_a_name_that_is_no_program_is_reported_with_its_rule(tmp_path: Path) -> None:
    with pytest.raises(CollectorMissing) as missing:
        collector({VARIABLE: str(tmp_path)}, say=silent)

    assert str(missing.value) == (
        f"OTEL_LEAKS_COLLECTOR must be the path of an otelcol that can be run, "
        f"got {str(tmp_path)!r}; leave it out to build one with Go"
    )


def test_a_built_collector_is_kept_in_the_users_cache(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    kept = cached(environ)
    kept.parent.mkdir(parents=True)
    kept.touch()

    assert collector(environ, say=silent) == kept
    assert kept.parent.parent == tmp_path / "otel-leaks"


def test_without_go_it_says_how_to_get_a_collector_and_where_to_put_it(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)}

    with pytest.raises(CollectorMissing) as missing:
        collector(environ, say=silent)

    assert str(missing.value) == (
        "no OpenTelemetry Collector: Go, which would build one, is not on PATH. Install Go, or "
        "get otelcol-contrib 0.159 or newer from the OpenTelemetry Collector's releases, and set "
        f"OTEL_LEAKS_COLLECTOR to its path, or put it at {cached(environ)}"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for Go is a shell script")
def test_a_build_that_fails_shows_its_last_lines_and_leaves_nothing(tmp_path: Path) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text("#!/bin/sh\necho no network\nexit 3\n", "utf-8")
    go.chmod(0o755)
    environ = {"XDG_CACHE_HOME": str(tmp_path), "PATH": str(go.parent)}
    said: list[str] = []

    with pytest.raises(CollectorMissing, match=r"building one failed(.|\n)*\nno network$"):
        collector(environ, say=said.append)

    assert [line.partition(",")[0] for line in said] == ["building an OpenTelemetry Collector"]
    assert [each.name for each in cached(environ).parent.iterdir()] == ["lock"]
