"""
Write the dashboard and the monitors for Datadog that stand beside this file.

    python examples/datadog/generate.py              # writes them anew
    python examples/datadog/generate.py --to DIR     # somewhere else

A development tool; generator/ has its parts. The monitors have the names, severities and
runbooks of the alerts in ../prometheus/rules.yaml.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

from generator.board import the_dashboard
from generator.monitors import the_monitors

HERE: Final = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Write dashboard.json and monitors.json anew.")
    parser.add_argument("--to", type=Path, default=HERE, help="folder, this one by default")
    to = parser.parse_args().to
    for name, made in (("dashboard.json", the_dashboard()), ("monitors.json", the_monitors())):
        (to / name).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
