"""What is under examples/ for a collector is what a collector wants."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from e2e.receiving import EXAMPLE, Collector

pytestmark = pytest.mark.e2e

EXAMPLES = EXAMPLE.parent
CONFIGURATIONS = sorted(
    path
    for path in EXAMPLES.rglob("*.yaml")
    if {"receivers", "service"} <= set(yaml.safe_load(path.read_text("utf-8")) or ())
)


def validate(otelcol: Path, path: Path) -> str:
    """Return what the collector has against a configuration."""
    done = subprocess.run(
        [str(otelcol), "validate", f"--config={path}"], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    return said or ("" if done.returncode == 0 else f"status {done.returncode}")


def test_there_is_an_example_to_validate() -> None:
    assert EXAMPLE in CONFIGURATIONS


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_every_example_is_valid(otelcol: Path, path: Path) -> None:
    assert validate(otelcol, path) == ""


def test_the_example_is_valid_with_a_backend_of_ones_own(otelcol: Path, tmp_path: Path) -> None:
    text = EXAMPLE.read_text("utf-8")
    block = re.search(r"(?m)^  # otlp_http/backend:\n(  #   .*\n)+", text)
    assert block is not None
    text = text.replace(block[0], re.sub(r"(?m)^  # ", "  ", block[0]))
    text, pipelines = re.subn(r"\] # and (\S+)", r", \1]", text)
    mended = tmp_path / "collector.yaml"
    mended.write_text(text, "utf-8")

    assert pipelines == 3
    assert validate(otelcol, mended) == ""


def test_the_collector_starts_without_a_warning(receiver: Collector) -> None:
    receiver.program.stop()

    assert receiver.levels() == {"info"}, receiver.log


def test_the_memory_limiter_is_first_and_nothing_batches_but_queues() -> None:
    pipelines = yaml.safe_load(EXAMPLE.read_text("utf-8"))["service"]["pipelines"]

    assert {name: each["processors"] for name, each in pipelines.items()} == {
        "metrics": ["memory_limiter"],
        "traces": ["memory_limiter"],
        "logs": ["memory_limiter"],
    }
