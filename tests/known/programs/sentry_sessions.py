"""A client that is closed leaves the thread that sends its sessions, for up to a minute."""

import sentry_sdk


def leak():
    # The thread of one client may be meant for the process; each client leaves one.
    for _ in range(3):
        sentry_sdk.init("http://key@127.0.0.1:9/1", release="1", auto_session_tracking=True)
        client = sentry_sdk.get_client()
        with sentry_sdk.isolation_scope() as scope:
            scope.start_session()
            scope.end_session()
        client.close(timeout=0.1)
