"""A session that is closed leaves the thread that empties the buckets of its limiter."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from requests_ratelimiter import LimiterSession


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


def leak():
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with LimiterSession(per_second=100) as session:
            session.trust_env = False
            session.get(f"http://127.0.0.1:{server.server_port}/")
        KEPT.append(session)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


KEPT = []
