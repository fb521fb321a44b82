"""A connection that is closed before all was read leaves the thread that receives."""

import threading

from websockets.sync.client import connect
from websockets.sync.server import serve


def leak():
    sent = threading.Event()

    def handler(connection):
        connection.recv()
        sent.wait(10)

    server = serve(handler, "127.0.0.1", 0, close_timeout=0.1)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    port = server.socket.getsockname()[1]
    with connect(f"ws://127.0.0.1:{port}", close_timeout=0.1) as client:
        for _ in range(4):
            client.send("unread")
        sent.set()
    server.shutdown()
    serving.join()
