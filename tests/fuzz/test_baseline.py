"""Files that are no baseline: one line says what is wrong with which file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_leaks.model import Site, fingerprint
from otel_leaks.pytest_plugin.baseline import Baseline
from otel_leaks.testing import Report

KNOWN = Site("thread", ("app.run",), 1, fingerprint("thread", ("app.run",)))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
bodies = st.one_of(
    st.binary(max_size=200),
    values.map(json.dumps).map(str.encode),
    st.fixed_dictionaries({"fingerprints": values}).map(json.dumps).map(str.encode),
    st.dictionaries(st.text() | st.just(KNOWN.fingerprint), values, max_size=4).map(
        lambda given: json.dumps({"fingerprints": given}).encode()
    ),
)

LARGE = {
    "empty": b"",
    "utf-16": b"\xff\xfe{\0}\0",
    "a byte order mark": b'\xef\xbb\xbf{"fingerprints": {}}',
    "too deep": b"[" * 100_000,
    "too deep in fingerprints": b'{"fingerprints":' * 50_000,
    "a number of 5,000 digits": b"9" * 5_000,
    "such a number within": b'{"fingerprints": {"a": ' + b"9" * 5_000 + b"}}",
    "NaN": b'{"fingerprints": {"a": NaN}}',
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("baseline") / "baseline.json"


@given(body=bodies)
def test_a_baseline_is_read_or_one_line_says_what_is_wrong_with_the_file(
    file: Path, body: bytes
) -> None:
    is_read_or_explained(file, body)


@pytest.mark.parametrize("what", LARGE)
def test_so_is_one_that_json_can_not_read(tmp_path: Path, what: str) -> None:
    is_read_or_explained(tmp_path / "baseline.json", LARGE[what])


def is_read_or_explained(file: Path, body: bytes) -> None:
    file.write_bytes(body)
    try:
        baseline = Baseline(str(file), update=False)
    except pytest.UsageError as error:
        said = str(error)
        assert said.startswith("--leaks-baseline: ")
        assert str(file) in said
        assert len(said.splitlines()) == 1
        return
    left = baseline.without_known(Report((KNOWN,), ()))
    assert bool(left) == (KNOWN.fingerprint not in baseline.known)
    assert all(isinstance(each, str) for each in baseline.lines())


@pytest.mark.parametrize("place", ["missing.json", ".", "a\0b"])
def test_a_place_that_holds_no_file_is_a_usage_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(pytest.UsageError, match=r"^--leaks-baseline: "):
        Baseline(f"{tmp_path}/{place}", update=False)
