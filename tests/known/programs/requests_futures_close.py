"""A session that is closed leaves the pool that it made."""

from requests_futures.sessions import FuturesSession


def leak():
    session = FuturesSession(max_workers=2)
    session.executor.submit(int).result()
    session.close()
    KEPT.append(session)


KEPT = []
