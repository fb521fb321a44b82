"""
Print the alerts that Alertmanager sends: the webhook of alertmanager.yaml, to try it out.

    python3 examples/prometheus/webhook.py            # listens on localhost:9095
    python3 examples/prometheus/webhook.py 9999
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in message["alerts"]:
            print(f"{message['receiver']}: {alert['status']} {alert['labels']['alertname']}")
            for annotation in ("summary", "description", "runbook_url"):
                print(f"    {alert['annotations'].get(annotation, '')}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if sys.argv[1:] else 9095
    print(f"listening on localhost:{port}", flush=True)
    HTTPServer(("127.0.0.1", port), Webhook).serve_forever()
