"""The services: how each is started, and what is expected of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reliability.serving import Run

__all__ = ["APPS", "HEALTHY", "LEAKS", "Leak", "Spans", "Stack"]

APPS = Path(__file__).with_name("apps")

Spans = Literal["all", "a tenth", "FastAPI's own", "none"]
"""Which there are: of all requests or a tenth, without the instrumentations, or none."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A service that is well."""

    name: str
    """Its file in ``apps``, and its users in ``apps/traffic.py``."""
    title: str
    packages: tuple[str, ...]
    """Whose versions the page names."""
    command: Callable[[Run, int, str], list[str]]
    """Makes the command line from the port and the name."""
    address: str = "http://127.0.0.1:{}"
    variables: Mapping[str, str] = field(default_factory=dict)
    tasks: int = 0
    """So many at least are there at its busiest, else it was not what it is meant to be."""
    threads: int = 0
    spans: tuple[Spans, ...] = ("all",)
    coming_s: float | None = None
    """In which users come who stay, where the span of a request ends before the request does."""
    is_short: bool = False

    @property
    def ready(self) -> str:
        """What it prints once it serves; empty for one that listens on its port."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Leak(Stack):
    """A service that leaks."""

    kind: Literal["thread", "asyncio_task"] = "asyncio_task"
    functions: tuple[str, ...]
    """What it is called, any of these."""
    route: str
    """The route of the request, or what else names the operation."""
    ends_with_users: bool = False
    """Whether what leaks talks to them, and ends when they go."""

    @property
    def line(self) -> int:
        """Where it is created."""
        lines = (APPS / f"{self.name}.py").read_text("utf-8").splitlines()
        (found,) = [i for i, line in enumerate(lines, 1) if line.endswith("# The leak.")]
        return found


def uvicorn(run: Run, port: int, name: str) -> list[str]:
    options = f"--host=127.0.0.1 --port={port} --log-level=warning --timeout-graceful-shutdown=2"
    return run.command("uvicorn", f"{name}:app", *options.split())


def django(run: Run, port: int, _: str) -> list[str]:
    options = f"--host=127.0.0.1 --port={port} --log-level=warning --timeout-graceful-shutdown=2"
    return run.command("uvicorn", "django_asgi:application", *options.split())


def gunicorn(threads: int) -> Callable[[Run, int, str], list[str]]:
    def command(run: Run, port: int, name: str) -> list[str]:
        options = f"--bind=127.0.0.1:{port} --worker-class=gthread --threads={threads}"
        return run.command("gunicorn", *options.split(), "--graceful-timeout=2", f"{name}:app")

    return command


def script(run: Run, port: int, name: str) -> list[str]:
    return run.command("python", f"{name}.py", str(port))


def hypercorn(run: Run, port: int, name: str) -> list[str]:
    options = f"--bind=127.0.0.1:{port} --graceful-timeout=2"
    return run.command("hypercorn", *options.split(), f"{name}:app")


def celery(run: Run, _: int, name: str) -> list[str]:
    options = "worker --pool=threads --concurrency=30 --loglevel=info"
    return run.command("celery", f"--app={name}", *options.split())


@dataclass(frozen=True, kw_only=True)
class Worker(Stack):
    """One that has no port."""

    says: str = " ready."

    @property
    def ready(self) -> str:
        return self.says


HEALTHY: tuple[Stack, ...] = (
    Stack(
        name="pools",
        title="FastAPI; pools of asyncpg, psycopg and redis, opened by the first request",
        packages=("fastapi", "uvicorn", "asyncpg", "psycopg-pool", "redis"),
        command=uvicorn,
        tasks=5,
        threads=5,
        spans=("all", "a tenth"),
        is_short=True,
    ),
    Stack(
        name="websockets_plateau",
        title="FastAPI; websockets that rise to a plateau and stay",
        packages=("fastapi", "uvicorn", "websockets"),
        command=uvicorn,
        tasks=300,
        spans=("all", "none"),
        is_short=True,
    ),
    Stack(
        name="sse",
        title="FastAPI, sse-starlette; event streams that stay open, each with a subscription",
        packages=("fastapi", "sse-starlette", "redis"),
        command=uvicorn,
        tasks=200,
    ),
    Stack(
        name="jobs",
        title="FastAPI; background jobs of a few minutes",
        packages=("fastapi", "uvicorn"),
        command=uvicorn,
        tasks=30,
        spans=("all", "a tenth", "FastAPI's own", "none"),
        is_short=True,
    ),
    Stack(
        name="mcp_sessions",
        title="MCP over streamable HTTP; sessions that stay open",
        packages=("mcp", "starlette", "uvicorn"),
        command=uvicorn,
        tasks=80,
        spans=("all", "a tenth"),
    ),
    Stack(
        name="tenants",
        title="FastAPI; a worker and a subscription for each tenant",
        packages=("fastapi", "redis"),
        command=uvicorn,
        tasks=100,
        spans=("all", "none"),
        is_short=True,
    ),
    Stack(
        name="ttl_cache",
        title="FastAPI; a cache with a timer for each key",
        packages=("fastapi", "uvicorn"),
        command=uvicorn,
        tasks=50,
        spans=("all", "none"),
    ),
    Stack(
        name="aiohttp_shop",
        title="aiohttp, server and client; requests, and websockets that stay open",
        packages=("aiohttp",),
        command=script,
        tasks=100,
    ),
    Stack(
        name="django_streams",
        title="Django under ASGI; 230 streams from views in threads",
        packages=("django", "asgiref", "uvicorn"),
        command=django,
        variables={"DJANGO_SETTINGS_MODULE": "django_streams"},
        coming_s=18.0,
        tasks=230,
        threads=230,
    ),
    Stack(
        name="gthread",
        title="Flask under gunicorn with 300 threads, 240 of them busy",
        packages=("gunicorn", "flask"),
        command=gunicorn(300),
        threads=150,
        is_short=True,
    ),
    Stack(
        name="executor_256",
        title="FastAPI; an executor of 256 threads, 230 of them busy",
        packages=("fastapi", "uvicorn"),
        command=uvicorn,
        threads=150,
        spans=("all", "none"),
    ),
    Stack(
        name="sync_endpoints",
        title="FastAPI; blocking endpoints in up to 300 of anyio's threads",
        packages=("fastapi", "anyio"),
        command=uvicorn,
        threads=150,
    ),
    Stack(
        name="grpc_streams",
        title="grpc.aio; calls of all four kinds, and streams that stay open",
        packages=("grpcio",),
        command=script,
        address="127.0.0.1:{}",
        tasks=60,
    ),
    Worker(
        name="celery_threads",
        title="Celery; the thread pool",
        packages=("celery", "redis"),
        command=celery,
        threads=10,
    ),
    Stack(
        name="merged_streams",
        title="FastAPI; responses that merge two async generators",
        packages=("fastapi", "uvicorn"),
        command=uvicorn,
        tasks=40,
        spans=("all", "none"),
    ),
    Stack(
        name="chat_rooms",
        title="Starlette; websockets that come and go, each with two anyio tasks",
        packages=("starlette", "anyio", "redis"),
        command=uvicorn,
        tasks=100,
    ),
    Stack(
        name="hypercorn_rooms",
        title="Starlette under hypercorn; websockets that stay open, and background tasks",
        packages=("starlette", "hypercorn"),
        command=hypercorn,
        tasks=180,
    ),
    Worker(
        name="queue_consumer",
        title="A redis consumer; workers and heartbeats of 48 partitions, with retries",
        packages=("redis", "tenacity"),
        command=script,
        says="consuming",
        tasks=100,
    ),
    Stack(
        name="scheduled_reports",
        title="FastAPI; SQLAlchemy's pool on asyncpg, and APScheduler with jobs added by requests",
        packages=("fastapi", "sqlalchemy", "asyncpg", "apscheduler"),
        command=uvicorn,
        tasks=15,
        threads=8,
        spans=("all", "none"),
    ),
    Stack(
        name="threaded_streams",
        title="Flask under werkzeug; streams that stay open, one thread each",
        packages=("flask", "werkzeug"),
        command=script,
        threads=90,
    ),
    Stack(
        name="terminals",
        title="aiohttp; websockets that stay open, each with its own thread and pool",
        packages=("aiohttp",),
        command=script,
        tasks=140,
        threads=140,
    ),
)

LEAKS: tuple[Leak, ...] = (
    Leak(
        name="leak_fastapi",
        title="FastAPI; a task created by an endpoint",
        packages=("fastapi", "uvicorn"),
        command=uvicorn,
        functions=("leak_fastapi.notify",),
        route="/orders/{order}",
        spans=("all", "a tenth", "FastAPI's own", "none"),
        is_short=True,
    ),
    Leak(
        name="leak_aiohttp_reader",
        title="aiohttp; a websocket reader that nobody stops",
        packages=("aiohttp",),
        command=script,
        functions=("__main__.read",),
        route="/live/{room}",
    ),
    Leak(
        name="leak_django",
        title="Django under ASGI; a task that polls forever",
        packages=("django", "uvicorn"),
        command=django,
        variables={"DJANGO_SETTINGS_MODULE": "leak_django"},
        functions=("leak_django.poll_status",),
        route="payments/<int:payment>",
    ),
    Leak(
        name="leak_thread_per_call",
        title="Flask under gunicorn; a consumer thread for each call",
        packages=("flask", "gunicorn"),
        command=gunicorn(8),
        kind="thread",
        functions=("leak_thread_per_call.Consumer.consume",),
        route="/imports/<name>",
        is_short=True,
    ),
    Leak(
        name="leak_executor_per_request",
        title="FastAPI; an executor for each request, never shut down",
        packages=("fastapi", "uvicorn"),
        command=uvicorn,
        kind="thread",
        functions=("pool ThreadPoolExecutor",),
        route="/search/{what}",
    ),
    Leak(
        name="leak_grpc",
        title="grpc.aio; a task created by a stream",
        packages=("grpcio",),
        command=script,
        address="127.0.0.1:{}",
        functions=("__main__.follow",),
        route="/shop.Shop/Watch",
    ),
    Leak(
        name="leak_redis_listener",
        title="FastAPI; redis's own listener, started by each request",
        packages=("fastapi", "redis"),
        command=uvicorn,
        functions=("redis.asyncio.client.PubSub.run",),
        route="/carts/{cart}",
        is_short=True,
    ),
    Leak(
        name="leak_merged_streams",
        title="FastAPI; the slower of two async generators is left behind",
        packages=("fastapi", "uvicorn"),
        command=uvicorn,
        functions=("leak_merged_streams.completion",),
        route="/chat/{n}",
        spans=("all", "none"),
    ),
    Leak(
        name="leak_gather",
        title="FastAPI; a gathered call that continues after the other one failed",
        packages=("fastapi", "uvicorn"),
        command=uvicorn,
        functions=("leak_gather.ask_price",),
        route="/items/{item}",
    ),
    Leak(
        name="leak_successors",
        title="FastAPI; chains of tasks, each of which creates the next",
        packages=("fastapi", "uvicorn"),
        command=uvicorn,
        functions=("leak_successors.renew",),
        route="/sessions/{session}",
    ),
    Leak(
        name="leak_retry",
        title="FastAPI; a delivery that is retried forever",
        packages=("fastapi", "tenacity"),
        command=uvicorn,
        functions=("leak_retry.deliver",),
        route="/hooks/{hook}",
    ),
    Leak(
        name="leak_scheduler",
        title="Flask under gunicorn; APScheduler started by each request",
        packages=("flask", "gunicorn", "apscheduler"),
        command=gunicorn(8),
        kind="thread",
        functions=(
            "apscheduler.schedulers.blocking.BlockingScheduler._main_loop",
            "apscheduler.schedulers.background.BackgroundScheduler._main_loop",
        ),
        route="/watches/<name>",
    ),
    Leak(
        name="leak_client",
        title="FastAPI; a websocket client that is not closed when nothing was found",
        packages=("fastapi", "websockets"),
        command=uvicorn,
        functions=("websockets.asyncio.connection.Connection.keepalive",),
        route="/quotes/{share}",
        ends_with_users=True,
    ),
)
