"""Docker Compose accepts the compose file, and its shop leaks and is fixed on request."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from e2e.receiving import Collector, eventually
from e2e.serving import Program, free_ports, instrumented
from support.compose import LoaderMissing, loader

pytestmark = pytest.mark.e2e

COMPOSE = Path(__file__).parents[2] / "examples" / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> Path:
    try:
        return loader(os.environ)
    except LoaderMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


def load(compose: Path, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [compose, path.name], cwd=path.parent, capture_output=True, text=True, check=False
    )


def test_docker_compose_takes_the_file(compose: Path) -> None:
    loaded = load(compose, COMPOSE)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    resolved = yaml.safe_load(loaded.stdout)["services"]
    assert "otel-leaks[view]" in resolved["shop"]["command"][2]
    sources = [mount["source"] for each in resolved.values() for mount in each.get("volumes", ())]
    assert len(sources) > 7
    assert [source for source in sources if not Path(source).exists()] == []


def test_a_slip_of_the_pen_is_refused(compose: Path, tmp_path: Path) -> None:
    slipped = tmp_path / "compose.yaml"
    slipped.write_text(COMPOSE.read_text("utf-8").replace("network_mode:", "network_mod:"), "utf-8")
    assert load(compose, slipped).returncode != 0


def test_the_shop_leaks_and_fixes_it_on_request(receiver: Collector, tmp_path: Path) -> None:
    shop = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["shop"]
    (port,) = free_ports(1)
    command = instrumented("uvicorn", "--host=127.0.0.1", f"--port={port}", "shop:app")
    variables = {
        **shop["environment"],
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
    }
    running = Program(
        [*command, f"--app-dir={COMPOSE.parent / 'compose'}"], variables, tmp_path / "log"
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            def pending() -> int:
                running.alive()
                try:
                    answer = client.post("/orders", params={"n": 120})
                except httpx.TransportError:
                    return 0
                return int(answer.raise_for_status().json()["pending"])

            assert eventually(pending) == 120
            (detected,) = eventually(lambda: receiver.spans("python.leak.detected"))[:1]
            assert detected.resource["service.name"] == "shop"
            assert detected.attributes["python.leak.limit"] == 100
            sample = detected.events[0].attributes
            assert sample["code.function.name"] == "shop.keep_customer_posted"

            assert client.post("/fix").json() == {"pending": 0}
            eventually(lambda: receiver.spans("python.leak.resolved"))
    finally:
        running.stop()
