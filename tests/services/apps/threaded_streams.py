"""Flask under a server with a thread for each request: streams that stay, and short requests."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from flask import Flask, Response
from werkzeug.serving import make_server

app = Flask(__name__)


def ticks() -> Iterator[bytes]:
    while True:
        yield b"tick\n"
        time.sleep(0.5)


@app.get("/events")  # type: ignore[untyped-decorator]
def events() -> Response:
    return Response(ticks(), mimetype="text/event-stream")


@app.get("/quick")  # type: ignore[untyped-decorator]
def quick() -> dict[str, int]:
    time.sleep(0.02)
    return {}


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
