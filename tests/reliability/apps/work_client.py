"""
Ask the workers of work.py, and run beside them.

    python work_client.py PORT WORKER_COMMAND...
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import bridge  # type: ignore[import-not-found]  # They lie beside, where the program runs.


def main(port: int, command: list[str]) -> None:
    worker = subprocess.Popen(command)
    for name in ("INSTRUMENT", "PYTHONPATH"):
        os.environ.pop(name, None)
    from work import app  # type: ignore[import-not-found]

    def ask(path: str, given: dict[str, int]) -> Any:
        return app.send_task(path.strip("/") or "state", kwargs=given).get(timeout=30)

    try:
        bridge.serve(port, ask)
    finally:
        worker.terminate()
        status = worker.wait()
    sys.exit(status)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
