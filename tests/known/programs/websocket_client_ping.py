"""An application that is closed before it reads leaves the thread that pings."""

import threading
import time

import websocket
from websockets.sync.server import serve


def leak():
    server = serve(lambda _: time.sleep(0.5), "127.0.0.1", 0, close_timeout=0.1)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    port = server.socket.getsockname()[1]

    def opened(app):
        app.keep_running = False

    app = websocket.WebSocketApp(f"ws://127.0.0.1:{port}", on_open=opened)
    app.run_forever(ping_interval=30, ping_timeout=1)
    app.close()
    server.shutdown()
    serving.join()
