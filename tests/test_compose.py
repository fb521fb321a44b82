"""compose.yaml mounts what is shipped, pins what it pulls, and is for this machine alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from otel_leaks.shipped import names, within
from support import grafana

EXAMPLES = Path(__file__).parents[1] / "examples"
COMPOSE: dict[str, Any] = yaml.safe_load((EXAMPLES / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SHARED = "service:"


def mounts() -> dict[str, tuple[str, ...]]:
    """Return where each service finds which of our files."""
    return {
        f"{service}: {mount}": tuple(mount.split(":"))
        for service, each in SERVICES.items()
        for mount in each.get("volumes", ())
    }


def test_what_is_mounted_is_what_is_shipped() -> None:
    assert len(mounts()) > 7
    for mount, (source, target, mode) in mounts().items():
        assert source.startswith("./"), mount
        assert within(source), mount
        assert (EXAMPLES / source).exists(), mount
        assert target.startswith("/"), mount
        assert mode == "ro", mount


def test_every_part_that_a_user_runs_by_hand_is_mounted() -> None:
    mounted = {name for source, *_ in mounts().values() for name in within(source)}
    elsewhere = re.compile(r"README|compose|collector|fleet/|datadog/|docs/|otlp")
    assert {name for name in names() if not elsewhere.search(name)} <= mounted


def test_a_folder_mounted_into_grafana_is_laid_out_as_grafana_wants_it() -> None:
    targets = {target: source for source, target, _ in mounts().values()}
    assert targets["/etc/grafana/provisioning"] == "./grafana/provisioning"
    (provider,) = grafana.provisioned("dashboards")["providers"]
    assert f"{provider['options']['path']}/dashboard.json" in targets


def test_every_image_is_pinned_to_a_release() -> None:
    tags = {each["image"]: each["image"].rpartition(":")[2] for each in SERVICES.values()}
    assert {
        image for image, tag in tags.items() if not re.fullmatch(r"v?\d+\.\d+\.\d+(-slim)?", tag)
    } == set()


def test_nothing_is_reached_from_other_machines() -> None:
    ports = [port for each in SERVICES.values() for port in each.get("ports", ())]
    assert len(ports) > 5
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)] == []
    # Whoever is in the network of another has none of its own.
    for each in SERVICES.values():
        if "network_mode" in each:
            assert not {"ports", "networks"} & set(each)


def test_every_service_that_is_named_is_there() -> None:
    aliases = {
        alias
        for each in SERVICES.values()
        for network in each.get("networks", {}).values()
        for alias in network["aliases"]
    }
    alone = {name for name, each in SERVICES.items() if "network_mode" not in each}
    needed = {name for each in SERVICES.values() for name in each.get("depends_on", ())}
    shared = {each["network_mode"] for each in SERVICES.values() if "network_mode" in each}
    assert needed <= set(SERVICES)
    assert {each.removeprefix(SHARED) for each in shared} <= alone

    asked = {
        urlsplit(url).hostname
        for each in SERVICES.values()
        for url in each.get("environment", {}).values()
        if url.startswith("http")
    }
    asked |= {
        urlsplit(each["url"]).hostname for each in grafana.provisioned("datasources")["datasources"]
    }
    assert len(asked) == 3
    assert asked <= alone | aliases


def test_those_that_speak_to_each_other_on_localhost_share_a_network() -> None:
    together = {
        name for name, each in SERVICES.items() if each.get("network_mode") == "service:prometheus"
    }
    assert together == {"collector", "alertmanager", "webhook"}
    for source, *_ in mounts().values():
        for name in within(source):
            if "localhost:" in (EXAMPLES / name).read_text("utf-8"):
                assert name.startswith(("prometheus/", "collector", "compose/")), name
