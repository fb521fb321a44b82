"""Ask what is no web server over HTTP, as the tests ask all servers."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Ask = Callable[[str, dict[str, int]], "dict[str, Any] | None"]


def serve(port: int, ask: Ask) -> None:
    """
    Answer in this thread until SIGTERM, which raises SystemExit.

    Args:
        port: Of 127.0.0.1.
        ask: Gets a path and numbers; None refuses.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            given = {key: int(some[0]) for key, some in parse_qs(url.query).items()}
            answer = ask(url.path, given)
            self.send_response(409 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    HTTPServer(("127.0.0.1", port), Handler).serve_forever(0.1)
