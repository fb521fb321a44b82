from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap

import pytest

from otel_leaks import model
from otel_leaks.model import (
    FINGERPRINT_SCHEME,
    Census,
    Detection,
    Finding,
    Frame,
    Population,
    Site,
    fingerprint,
    scheme_of,
)


def test_fingerprints_are_the_same_for_ever() -> None:
    # Users keep fingerprints in files and alerts: another value is a breaking change.
    assert [
        fingerprint("thread", ("app.jobs.work",)),
        fingerprint("asyncio_task", ("app.jobs.work",)),
        fingerprint("asyncio_task", ("app.serve", "app.Client.get", "app.read")),
        fingerprint("asyncio_task", ("app.<locals>.größe",)),
    ] == ["52c91f13454a", "7df6f7a2be6e", "588b927ed193", "eb886f0e9838"]
    assert FINGERPRINT_SCHEME == 1


def test_a_fingerprint_without_a_number_before_it_is_of_the_first_scheme() -> None:
    written = ("52c91f13454a", "52c9*", "*", "2:52c91f13454a", "12:*", "a:b")
    assert list(map(scheme_of, written)) == [1, 1, 1, 2, 12, 1]


def test_a_fingerprint_depends_on_where_one_function_ends_and_the_next_begins() -> None:
    assert fingerprint("thread", ("a", "b")) != fingerprint("thread", ("a.b",))
    assert fingerprint("thread", ("a", "b")) != fingerprint("thread", ("b", "a"))


def test_a_fingerprint_takes_names_that_are_no_valid_unicode() -> None:
    assert len(fingerprint("thread", ("app.\udcff",))) == 12


def test_two_processes_give_one_site_the_same_fingerprint() -> None:
    program = textwrap.dedent("""
        from otel_leaks.model import fingerprint
        print(fingerprint("thread", ("app.run", "app.wait")))
    """)
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {fingerprint("thread", ("app.run", "app.wait")) + "\n"}


def test_a_census_gives_the_population_of_a_kind_or_none() -> None:
    threads = Population("thread", 3)
    census = Census(taken_at=1.0, populations=(threads,))
    assert census.of("thread") is threads
    assert census.of("asyncio_task") is None


def test_a_site_runs_its_outermost_function() -> None:
    assert Site("thread", ("app.run", "app.wait"), 1, "0" * 12).function == "app.run"


@pytest.mark.parametrize(
    ("function", "name"),
    [("app.jobs.Worker.run", "run"), ("run", "run"), ("app.<locals>.<lambda>", "<lambda>")],
)
def test_a_frame_has_its_functions_own_name(function: str, name: str) -> None:
    assert Frame(function, "app.py", 1).name == name


def test_findings_of_two_censuses_are_one_by_kind_evidence_and_fingerprint() -> None:
    one = Finding("thread", "threshold", 5, limit=3)
    other = Finding("thread", "threshold", 9, limit=3, age_s=10.0)
    assert one.key == other.key == ("thread", "threshold", None)
    assert one.key != dataclasses.replace(one, fingerprint="0" * 12).key


def test_a_detection_was_open_from_its_first_census_to_its_last() -> None:
    detection = Detection(Finding("thread", "threshold", 5), opened_at=10.0, seen_at=40.0, peak=5)
    assert detection.open_s == 30.0


def test_all_words_are_frozen_and_have_slots() -> None:
    words = [
        each
        for each in vars(model).values()
        if isinstance(each, type) and dataclasses.is_dataclass(each)
    ]
    kept = [
        word
        for word in words
        if vars(word)["__dataclass_params__"].frozen and "__slots__" in vars(word)
    ]
    assert kept == words
    assert Census in words
