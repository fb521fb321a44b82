"""
Findings and their ends as one sentence each, the same for every reader.

The wording is that of the policy that found it, in ``detect``.
"""

from __future__ import annotations

from otel_leaks.detect.policies import POLICY_OF
from otel_leaks.model import Detection, Finding, Operation

__all__ = ["operation_of", "resolution", "sentence"]


def sentence(finding: Finding) -> str:
    """Return what was found, in one sentence without a full stop."""
    return POLICY_OF[finding.evidence].found(finding)


def resolution(detection: Detection) -> str:
    """Return why a finding ended and how many are left, in one sentence without a full stop."""
    return POLICY_OF[detection.finding.evidence].ended(detection)


def operation_of(finding: Finding) -> Operation | None:
    """Return the operation that a finding concerns, None if there is none or it is unknown."""
    if not POLICY_OF[finding.evidence].is_of_operation:
        return None
    return next((each for each in finding.sites[0].operations if each.name), None)
