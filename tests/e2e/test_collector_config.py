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
CONTRIB = EXAMPLES / "collector-contrib.yaml"
DATADOG = EXAMPLES / "collector-datadog-exporter.yaml"
CONFIGURATIONS = {
    path: each
    for path in sorted(EXAMPLES.rglob("*.yaml"))
    if "pipelines" in ((each := yaml.safe_load(path.read_text("utf-8"))).get("service") or {})
}
WHOLE = {path for path, each in CONFIGURATIONS.items() if "receivers" in each}
"""The others are merged with the one for contrib."""

# What each component says of itself in its metadata.yaml, as of 0.159.
CORE = {
    "receivers": {"otlp"},
    "processors": {"memory_limiter", "filter"},
    "exporters": {"debug", "file", "otlp_grpc", "otlp_http", "prometheus"},
}
FOR_CORE = [EXAMPLE, EXAMPLES / "fleet" / "gateway.yaml"]


def validate(otelcol: Path, *paths: Path) -> str:
    """Return what the collector has against a configuration."""
    done = subprocess.run(
        [str(otelcol), "validate", *(f"--config={path}" for path in paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    return said or ("" if done.returncode == 0 else f"status {done.returncode}")


def merged(path: Path) -> list[Path]:
    return [path] if path in WHOLE else [CONTRIB, path]


def test_there_are_examples_to_validate() -> None:
    assert {EXAMPLE, CONTRIB, *FOR_CORE} == WHOLE
    assert len(CONFIGURATIONS) > len(WHOLE)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.relative_to(EXAMPLES)}")
def test_every_example_is_valid(
    otelcol: Path, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DD_API_KEY", "a-key")
    paths = merged(path)
    if path == DATADOG:
        paths = [CONTRIB, without_datadog(path, tmp_path)]

    assert validate(otelcol, *paths) == ""


def without_datadog(path: Path, folder: Path) -> Path:
    """Put another exporter in the place of Datadog's, which `make datadog` checks by itself."""
    given = yaml.safe_load(path.read_text("utf-8"))
    assert set(given["exporters"]) == {"datadog"}
    given["exporters"] = {"debug/datadog": {}}
    for each in given["service"]["pipelines"].values():
        assert "datadog" in each["exporters"]
        each["exporters"] = [name.replace("datadog", "debug/datadog") for name in each["exporters"]]
    file = folder / path.name
    file.write_text(yaml.safe_dump(given), "utf-8")
    return file


def test_what_the_page_on_fleets_drops_at_a_gateway_is_valid(otelcol: Path, tmp_path: Path) -> None:
    page = (EXAMPLES.parent / "docs" / "fleet.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    few = tmp_path / "few.yaml"
    few.write_text(text, "utf-8")

    assert validate(otelcol, EXAMPLES / "fleet" / "gateway.yaml", few) == ""


@pytest.mark.parametrize("path", FOR_CORE, ids=lambda path: path.name)
def test_what_is_for_the_core_distribution_needs_no_other(path: Path) -> None:
    used = {
        kind: {name.partition("/")[0] for name in parts}
        for kind, parts in CONFIGURATIONS[path].items()
        if kind != "service"
    }
    assert set(used) <= set(CORE), "other kinds of components"
    assert {kind: parts - CORE[kind] for kind, parts in used.items() if parts - CORE[kind]} == {}


def test_the_example_is_valid_with_a_backend_of_ones_own(otelcol: Path, tmp_path: Path) -> None:
    text = EXAMPLE.read_text("utf-8")
    block = re.search(r"(?m)^  # otlp_http/backend:\n(  #   .*\n)+", text)
    assert block is not None
    text = text.replace(block[0], re.sub(r"(?m)^  # ", "  ", block[0]))
    text, pipelines = re.subn(r"\] # and (\S+)", r", \1]", text)
    edited = tmp_path / "collector.yaml"
    edited.write_text(text, "utf-8")

    assert pipelines == 3
    assert validate(otelcol, edited) == ""


def test_the_one_for_contrib_is_valid_with_metrics_to_the_backend(
    otelcol: Path, tmp_path: Path
) -> None:
    text, pipelines = re.subn(r"\] # and (\S+)", r", \1]", CONTRIB.read_text("utf-8"))
    edited = tmp_path / "collector.yaml"
    edited.write_text(text, "utf-8")

    assert pipelines == 2
    assert validate(otelcol, edited) == ""


def test_the_collector_starts_without_a_warning(receiver: Collector) -> None:
    receiver.program.stop()

    assert receiver.levels() == {"info"}, receiver.log


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.relative_to(EXAMPLES)}")
def test_the_memory_limiter_is_first_and_nothing_batches_but_queues(path: Path) -> None:
    pipelines = CONFIGURATIONS[path]["service"]["pipelines"].values()
    processors = [each["processors"] for each in pipelines if "processors" in each]

    assert {each[0] for each in processors} <= {"memory_limiter"}
    assert "batch" not in {name.partition("/")[0] for each in processors for name in each}
    assert processors or path not in WHOLE
