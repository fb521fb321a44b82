"""
Write the dashboard and the alerts for Grafana that stand beside this file.

    python examples/grafana/generate.py              # writes them anew
    python examples/grafana/generate.py --to DIR     # somewhere else

A development tool, needs Python 3.11 and grafana-foundation-sdk; generator/ has its parts.
The alerts are those of ../prometheus/rules.yaml in the form of Grafana: nothing of them is
written twice.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import yaml
from generator.alerts import ABOUT, the_alerts
from generator.board import the_dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

HERE: Final = Path(__file__).parent


def files() -> dict[str, str]:
    """Return what is generated, by its path below this folder."""
    return {
        "dashboard.json": json.dumps(the_dashboard(), cls=JSONEncoder, indent=2) + "\n",
        "provisioning/alerting/alerts.yaml": ABOUT
        + yaml.safe_dump(the_alerts(), sort_keys=False, width=100),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Write dashboard.json and alerts.yaml anew.")
    parser.add_argument("--to", type=Path, default=HERE, help="folder, this one by default")
    to = parser.parse_args().to
    for path, text in files().items():
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        (to / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
