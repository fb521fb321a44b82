"""
The list of policies.

It follows ``model.Evidence``: each evidence is a file in this folder with a ``POLICY``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from otel_leaks.detect.policy import Policy
from otel_leaks.model import EVIDENCES, Evidence, Kind

__all__ = ["OPENABLE", "POLICIES", "POLICY_OF"]

POLICIES: tuple[Policy, ...] = tuple(
    cast("Policy", import_module(f"otel_leaks.detect.{evidence}").POLICY) for evidence in EVIDENCES
)
"""In the order in which they are called."""

POLICY_OF: Mapping[Evidence, Policy] = {policy.evidence: policy for policy in POLICIES}

OPENABLE: tuple[tuple[Kind, Evidence], ...] = tuple(
    pair for policy in POLICIES for pair in policy.opens
)
"""The pairs of kind and evidence that any policy can open."""
