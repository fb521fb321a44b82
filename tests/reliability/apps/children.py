"""
A program with two children of multiprocessing, which leak when they are asked to.

    python children.py fork|forkserver|spawn PORT
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from typing import Any

import bridge  # type: ignore[import-not-found]  # They lie beside, where the program runs.
import watched  # type: ignore[import-not-found]

watched.note_our_log()
# At the top, as README shows it: children that import this file anew run it as well.
watched.instrument_in_code()


def child(asked: Any) -> None:
    """Answer until the parent asks for the end."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Inherited by fork from the parent.
    for path, given in iter(asked.recv, None):
        if path == "/leak":
            if given["pid"] != os.getpid():
                asked.send(None)
                continue
            watched.leak_threads(given["n"])
        asked.send(watched.state())


def main(method: str, port: int) -> None:
    context = multiprocessing.get_context(method)
    pipes, children = [], []
    for _ in range(2):
        ours, theirs = context.Pipe()
        started = context.Process(target=child, args=(theirs,))  # type: ignore[attr-defined]
        started.start()
        theirs.close()
        pipes.append(ours)
        children.append(started)
    turns = itertools.cycle(pipes)

    def ask(path: str, given: dict[str, int]) -> Any:
        pipe = next(turns)
        pipe.send((path, given))
        return pipe.recv()

    try:
        bridge.serve(port, ask)
    finally:
        for pipe, each in zip(pipes, children, strict=True):
            pipe.send(None)
            each.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
