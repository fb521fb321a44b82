"""
Known leaks of libraries: where they are reported, and which version fixes them.

``KNOWN`` is data. Each entry has been seen to leak in an affected version, and not to leak in the
version that fixes it: ``tests/known`` has the programs. ``docs/known-leaks.md`` explains how to
add one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from otel_leaks.model import Kind, Site
from otel_leaks.report.versions import installed, key_of

__all__ = ["KNOWN", "KnownLeak", "hint"]


@dataclass(frozen=True, slots=True)
class KnownLeak:
    """One leak of one distribution, in a range of its versions."""

    distribution: str
    """Its name on PyPI."""
    kind: Kind
    since: str
    """The first version that is known to leak."""
    fixed: str | None
    """The first version that does not; None if there is none yet."""
    upstream: str
    """Issue or pull request on GitHub, ``owner/name#1``; without a number if there is none."""
    functions: tuple[str, ...] = ()
    """Globs, each of which must match one of the site's functions."""
    created_by: str = ""
    """Glob for the function that created it, of the library or the application; empty for any."""
    seen: str = ""
    """The newest version that was seen to leak, if none fixes it."""


KNOWN: tuple[KnownLeak, ...] = (
    KnownLeak(
        "aioserial",
        "thread_pool",
        since="1.3.0",
        fixed=None,
        seen="1.3.1",
        upstream="johannjhang/aioserial.py#27",
        created_by="aioserial.aioserial.AioSerial.__init__",
    ),
    KnownLeak(
        "APScheduler",
        "thread_pool",
        since="3.10.4",
        fixed=None,
        seen="3.11.3",
        upstream="agronholm/apscheduler",
        created_by="apscheduler.executors.tornado.TornadoExecutor.__init__",
    ),
    KnownLeak(
        "fastapi-websocket-pubsub",
        "asyncio_task",
        since="0.3.9",
        fixed=None,
        seen="1.0.1",
        upstream="permitio/fastapi_websocket_pubsub#98",
        functions=("asyncio.locks.Event.wait",),
        created_by="fastapi_websocket_pubsub.pub_sub_client.PubSubClient.run",
    ),
    KnownLeak(
        "fastapi-websocket-rpc",
        "asyncio_task",
        since="0.1.22",
        fixed="0.1.23",
        upstream="permitio/fastapi_websocket_rpc#15",
        functions=("asyncio.locks.Event.wait",),
        created_by="fastapi_websocket_rpc.rpc_channel.RpcChannel.wait_for_response",
    ),
    KnownLeak(
        "mcp",
        "asyncio_task",
        since="1.8.0",
        fixed="1.12.0",
        upstream="modelcontextprotocol/python-sdk#756",
        functions=("mcp.server.streamable_http_manager.*._handle_stateless_request.<locals>.*",),
    ),
    KnownLeak(
        "more-executors",
        "thread",
        since="1.10.0",
        fixed="1.14.0",
        upstream="rohanpm/more-executors#87",
        functions=("more_executors.*._submit_loop",),
    ),
    KnownLeak(
        "prometheus-client",
        "thread",
        since="0.10.0",
        fixed="0.20.0",
        upstream="prometheus/client_python#999",
        functions=("socketserver.BaseServer.serve_forever",),
        created_by="prometheus_client.exposition.*",
    ),
    KnownLeak(
        "pymodbus",
        "asyncio_task",
        since="3.0.2",
        fixed="3.1.2",
        upstream="pymodbus-dev/pymodbus#1198",
        functions=("pymodbus.client.tcp.AsyncModbusTcpClient._reconnect",),
    ),
    KnownLeak(
        "requests-futures",
        "thread_pool",
        since="0.9.7",
        fixed="0.9.8",
        upstream="ross/requests-futures#51",
        created_by="requests_futures.sessions.FuturesSession.__init__",
    ),
    KnownLeak(
        "requests-ratelimiter",
        "thread",
        since="0.9.0",
        fixed="0.9.2",
        upstream="JWCook/requests-ratelimiter#135",
        functions=("pyrate_limiter.abstracts.bucket.Leaker.*",),
    ),
    KnownLeak(
        "sentry-sdk",
        "thread",
        since="2.0.0",
        fixed="2.33.0",
        upstream="getsentry/sentry-python#4561",
        functions=("sentry_sdk.sessions.SessionFlusher._ensure_running.<locals>._thread",),
    ),
    KnownLeak(
        "slack-sdk",
        "thread",
        since="3.20.0",
        fixed="3.45.0",
        upstream="slackapi/python-slack-sdk#1873",
        functions=("slack_sdk.socket_mode.interval_runner.IntervalRunner._run",),
    ),
    KnownLeak(
        "sse-starlette",
        "asyncio_task",
        since="3.1.0",
        fixed="3.1.2",
        upstream="sysid/sse-starlette#152",
        functions=("sse_starlette.sse._shutdown_watcher",),
    ),
    KnownLeak(
        "starlette",
        "asyncio_task",
        since="0.13.7",
        fixed="0.13.8",
        upstream="Kludex/starlette#1022",
        functions=(
            "starlette.middleware.base.BaseHTTPMiddleware.call_next.<locals>.coro",
            "asyncio.queues.Queue.put",
        ),
    ),
    KnownLeak(
        "strawberry-graphql",
        "asyncio_task",
        since="0.170.0",
        fixed="0.176.1",
        upstream="strawberry-graphql/strawberry#2720",
        functions=("strawberry.subscriptions.*.handle_connection_init_timeout",),
    ),
    KnownLeak(
        "websocket-client",
        "thread",
        since="1.3.0",
        fixed="1.6.0",
        upstream="websocket-client/websocket-client#917",
        functions=("websocket._app.WebSocketApp._send_ping",),
    ),
    KnownLeak(
        "websockets",
        "thread",
        since="11.0",
        fixed="11.0.2",
        upstream="python-websockets/websockets#1336",
        functions=(
            "websockets.sync.connection.Connection.close",
            "websockets.sync.connection.Connection.send_context",
        ),
    ),
    KnownLeak(
        "WSDiscovery",
        "thread",
        since="2.0.0",
        fixed="2.1.0",
        upstream="andreikop/python-ws-discovery#46",
        functions=("wsdiscovery.threaded.*",),
    ),
    KnownLeak(
        "zeroconf",
        "event_loop",
        since="0.132.0",
        fixed="0.149.0",
        upstream="python-zeroconf/python-zeroconf#1589",
        created_by="zeroconf._core.*",
    ),
)
"""In alphabetical order; the first match wins."""


def hint(site: Site, _own: Site) -> str | None:
    """Recognize leaks that are reported upstream, in the installed version."""
    for known in KNOWN:
        if known.kind == site.kind and _matches(known, site):
            version = installed(known.distribution)
            if version is not None and is_affected(known, version):
                return _text(known, version)
    return None


def is_affected(known: KnownLeak, version: str) -> bool:
    """Return whether a version of the distribution has the leak."""
    key, since = key_of(version), key_of(known.since)
    if key is None or since is None or key < since:
        return False
    if known.fixed is None:
        return True
    fixed = key_of(known.fixed)
    return fixed is not None and key < fixed


def _text(known: KnownLeak, version: str) -> str:
    where = f"upstream {known.upstream}"
    if known.fixed is None:
        return f"known: not fixed as of {known.distribution} {known.seen}, {where}"
    return f"known: fixed in {known.distribution} {known.fixed} (this is {version}), {where}"


def _matches(known: KnownLeak, site: Site) -> bool:
    if not all(any(map(_pattern(each).match, site.functions)) for each in known.functions):
        return False
    if not known.created_by:
        return True
    origin = site.origin
    makers = [] if origin is None else [origin.function]
    if origin is not None and origin.library is not None:
        makers.append(origin.library.function)
    return any(map(_pattern(known.created_by).match, makers))


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))
