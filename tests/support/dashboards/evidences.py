"""What the dashboards say of each evidence, in the words of its policy."""

from __future__ import annotations

from typing import Final

from otel_leaks.detect.policies import POLICIES

OPEN_FINDINGS: Final = "Findings that were open, by service, kind and evidence: {}.".format(
    ", ".join(f"{each.evidence} ({each.says})" for each in POLICIES)
)
