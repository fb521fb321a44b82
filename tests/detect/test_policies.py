"""The list of policies, which monitor, telemetry, reports and docs follow."""

from __future__ import annotations

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policies import OPENABLE, POLICIES
from otel_leaks.detect.words import NOUNS
from otel_leaks.model import EVIDENCES, KINDS


def test_each_evidence_has_its_policy() -> None:
    assert [each.evidence for each in POLICIES] == list(EVIDENCES)


def test_what_can_open_is_told_once_and_of_kinds_that_there_are() -> None:
    assert len(OPENABLE) == len(set(OPENABLE))
    assert {kind for kind, _ in OPENABLE} <= set(KINDS)


def test_the_options_of_a_policy_are_options() -> None:
    named = [name for each in POLICIES for name in each.options]
    assert set(named) <= set(LeakConfig.names())
    assert "task_limit" in named


def test_there_are_words_for_each_kind() -> None:
    assert tuple(NOUNS) == KINDS
