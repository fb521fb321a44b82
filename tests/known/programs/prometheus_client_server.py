"""Nothing ends the server that start_http_server() starts."""

from prometheus_client import start_http_server


def leak():
    started = start_http_server(0, addr="127.0.0.1")
    if started is not None:
        server, thread = started
        server.shutdown()
        server.server_close()
        thread.join()
