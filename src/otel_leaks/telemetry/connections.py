"""
Connections of the SDK's exporters, which a forked child must not share with its parent.

Exporters over HTTP keep their connection open. A child inherits it: parent and child then
write their requests into one stream, the OpenTelemetry Collector answers 400 to requests it can't
read, and each may get the answer to the other's request. Most processes that fork have exported
nothing before, but the gauges of otel-leaks are exported from the start of a server's master on.
So a child starts without connections. All names here are private to the SDK (1.35 to 1.45),
requests 2 and urllib3 1 and 2; objects with other names are left as they are.
"""

from __future__ import annotations

import contextlib
import encodings.idna
import netrc
from collections.abc import Iterator
from typing import Any

from otel_leaks.telemetry.forks import renew_lock

# If a process forks while a thread imports a module, the child waits forever for that import
# once it needs the module. So the first export, which our metrics cause, must import nothing.
_FIRST_EXPORT = (encodings.idna, netrc)

__all__ = ["renew_connections"]

# Inherited pools are kept: dropping them would take locks that a thread of the parent may
# have held at the fork.
_inherited: list[object] = []


def renew_connections(*providers: object) -> None:
    """Make the exporters of tracer, meter and logger providers reconnect in a child."""
    for exporter in _exporters(providers):
        for session in _sessions(exporter):
            with contextlib.suppress(Exception):  # The child belongs to the application.
                renew_lock(getattr(session, "cookies", None), "_cookies_lock")
                _renew_pools(session)


def _exporters(providers: tuple[object, ...]) -> Iterator[object]:
    for provider in providers:
        # Readers of metrics, processors of spans, processors of log records.
        some = [
            *_parts(provider, "_measurement_consumer", "_reader_storages"),
            *_parts(provider, "_active_span_processor", "_span_processors"),
            *_parts(provider, "_multi_log_record_processor", "_log_record_processors"),
        ]
        for each in some:
            for holder in (each, getattr(each, "_batch_processor", None)):
                for name in ("_exporter", "span_exporter"):
                    exporter = getattr(holder, name, None)
                    if exporter is not None:
                        yield exporter


def _parts(provider: object, owner: str, name: str) -> list[object]:
    return list(getattr(getattr(provider, owner, None), name, None) or ())


def _sessions(exporter: object) -> Iterator[Any]:
    """Yield the ``requests`` sessions of an exporter."""
    client = getattr(exporter, "_client", None)
    for holder in (exporter, client, getattr(client, "_transport", None)):
        session = getattr(holder, "_session", None)
        if session is not None:
            yield session


def _renew_pools(session: Any) -> None:
    for adapter in list(session.adapters.values()):
        managers = [getattr(adapter, "poolmanager", None)]
        managers += (getattr(adapter, "proxy_manager", None) or {}).values()
        for manager in managers:
            if hasattr(manager, "pools"):
                _empty(manager)


def _empty(manager: Any) -> None:
    """
    Empty a pool manager, without a lock that may be held forever.

    Also done if it has no pools: the parent may be creating its first, and hold the lock.
    """
    inherited: Any = manager.pools
    pools = list(inherited._container.values())
    manager.pools = type(inherited)(inherited._maxsize)
    _inherited.append(inherited)
    for pool in pools:
        for connection in list(pool.pool.queue):
            sock = getattr(connection, "sock", None)
            if sock is not None:
                sock.close()  # Closed in this process only: the parent's stays open.
