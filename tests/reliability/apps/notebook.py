"""
Run the cells of a notebook in a kernel of Jupyter, which leak when they are asked to.

    python notebook.py PORT KERNEL_COMMAND...
"""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any

import bridge  # type: ignore[import-not-found]  # It lies beside, where the program runs.
from jupyter_client.kernelspec import KernelSpec  # type: ignore[import-not-found]
from jupyter_client.manager import KernelManager  # type: ignore[import-not-found]

FIRST = """
import watched
watched.note_our_log()
watched.instrument_in_code()
"""


def main(port: int, command: list[str]) -> None:
    kernel = KernelManager()
    kernel._kernel_spec = KernelSpec(argv=[*command, "-f", "{connection_file}"], language="python")
    kernel.start_kernel(cwd=str(Path(__file__).parent), env=dict(os.environ))
    client = kernel.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)

    def run(cell: str) -> Any:
        reply = client.execute(
            cell, user_expressions={"state": "watched.state()"}, reply=True, timeout=60
        )["content"]
        if reply["status"] != "ok":
            raise RuntimeError(reply)
        return ast.literal_eval(reply["user_expressions"]["state"]["data"]["text/plain"])

    def ask(path: str, given: dict[str, int]) -> Any:
        return run(f"watched.leak_threads({given['n']})" if path == "/leak" else "pass")

    try:
        run(FIRST)
        bridge.serve(port, ask)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
