"""
Write the dashboards and the alerts for Grafana and Datadog, which are generated, anew.

    make dashboards
    PYTHONPATH=tests python -m support.dashboards --to DIR   # somewhere else

Needs Python 3.11, for grafana-foundation-sdk. The alerts are those of
examples/prometheus/rules.yaml: run it when these changed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from support.dashboards.datadog.board import the_dashboard as for_datadog
from support.dashboards.datadog.monitors import the_monitors
from support.dashboards.grafana.alerts import ABOUT, the_alerts
from support.dashboards.grafana.board import the_dashboard as for_grafana

EXAMPLES: Final = Path(__file__).parents[3] / "examples"


def files() -> dict[str, str]:
    """Return what is generated, by its name below examples/."""
    return {
        "grafana/dashboard.json": as_json(for_grafana()),
        "grafana/provisioning/alerting/alerts.yaml": ABOUT
        + yaml.safe_dump(the_alerts(), sort_keys=False, width=100),
        "datadog/dashboard.json": as_json(for_datadog()),
        "datadog/monitors.json": as_json(the_monitors()),
    }


def as_json(made: object) -> str:
    return json.dumps(made, cls=JSONEncoder, indent=2) + "\n"


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(prog="support.dashboards", description="Write them anew.")
    parser.add_argument("--to", type=Path, default=EXAMPLES, help="folder, examples/ by default")
    to = parser.parse_args().to
    for name, text in files().items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
