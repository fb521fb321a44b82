"""A client that is closed keeps the thread that runs its session."""

from slack_sdk.socket_mode import SocketModeClient


def leak():
    SocketModeClient(app_token="xapp-1").close()
