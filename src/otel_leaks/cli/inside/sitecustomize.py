"""
Instruments a program of ``otel-leaks run``, before its own first line.

Python imports this module by its name, because its folder comes first in ``PYTHONPATH``. It does
not suppress a ``sitecustomize`` of the environment, which it runs first.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import signal
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent


def _environments_own() -> None:
    """Run the ``sitecustomize`` that this one hides."""
    others = [each for each in sys.path if Path(each or ".").resolve() != _FOLDER.resolve()]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _instrument() -> None:
    # A helper process of multiprocessing, which runs none of the program's code.
    if any("multiprocessing.resource_tracker" in each for each in sys.orig_argv):
        return
    try:
        from otel_leaks.cli.within import start

        start()
    except Exception as error:
        # The program still runs: most likely its environment does not have otel-leaks.
        print(
            f"otel-leaks: {sys.executable} is not watched: {type(error).__name__}: {error}",
            file=sys.stderr,
        )


try:
    try:
        _environments_own()
    finally:
        _instrument()
except KeyboardInterrupt:
    # Otherwise Python would exit with the traceback of a fatal error.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)
