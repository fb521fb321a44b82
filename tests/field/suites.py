"""The suites of others that are run with otel-leaks, and how each is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["SUITES", "Suite"]

LISTS = Path(__file__).with_name("lists")


@dataclass(frozen=True)
class Suite:
    """One suite: the source distribution it is in, and the arguments of pytest."""

    name: str
    arguments: tuple[str, ...]
    left_out: str = ""
    """What the arguments leave out, and why."""
    shadows: tuple[str, ...] = ()
    """Paths of the source that would be imported instead of the package as installed."""
    server: str = ""
    """``redis``: run one, and put its port where ``{port}`` stands."""
    variables: tuple[tuple[str, str], ...] = ()
    """Of the environment, beside those that every suite has."""

    @property
    def requirements(self) -> Path:
        """Return the pinned packages of its environment."""
        return LISTS / f"{self.name}.txt"

    @property
    def version(self) -> str:
        """Return the version that is run, which the list of packages pins."""
        for line in self.requirements.read_text("utf-8").splitlines():
            name, _, version = line.partition(" ;")[0].partition("==")
            if name.partition("[")[0] == self.name:
                return version.strip()
        raise ValueError(f"{self.requirements.name} must pin {self.name}, and does not")


NO_TRIO = ("-k", "not trio")

SUITES = (
    Suite("aiosqlite", ("aiosqlite/tests", "-o", "python_files=*.py")),
    Suite(
        "httpx",
        ("tests", "-m", "not network", *NO_TRIO),
        left_out="what needs the Internet or runs on Trio",
    ),
    Suite("asgiref", ("tests",)),
    Suite("httpcore", ("tests", *NO_TRIO), left_out="what runs on Trio"),
    Suite("starlette", ("tests", *NO_TRIO), left_out="what runs on Trio"),
    Suite("uvicorn", ("tests", "-o", "addopts=--strict-markers", "--ignore=tests/benchmarks")),
    Suite(
        "apscheduler",
        ("tests", "-m", "not external_service"),
        left_out="what needs a database server",
    ),
    Suite(
        "tornado",
        ("tornado/test", "-o", "python_files=*_test.py"),
    ),
    Suite(
        "zeroconf",
        (
            *("tests", "-o", "addopts=", "--timeout=60"),
            *("--ignore=tests/benchmarks", "--ignore=tests/test_circular_imports.py"),
        ),
        left_out="its benchmarks; and a module whose teardown fails unless asyncio's thread that "
        "waits for a child has ended at once, a race that any delay decides",
    ),
    Suite(
        "anyio",
        (
            *("tests", "-m", "not network", "-k", "not trio and not ipv6"),
            "--ignore=tests/test_pytest_plugin.py",
        ),
        left_out="what needs the Internet or IPv6, runs on Trio, or runs a pytest of its own",
    ),
    Suite(
        "aiohttp",
        (
            *("-o", "addopts=--strict-markers"),
            *("-m", "not dev_mode and not autobahn and not internal"),
            *(
                f"tests/test_{each}.py"
                for each in (
                    *("web_functional", "client_session", "connector", "run_app", "web_runner"),
                    *("web_websocket_functional", "client_ws_functional", "streams"),
                    *("web_server", "loop", "resolver", "test_utils"),
                )
            ),
        ),
        left_out="all but the modules with servers, clients, loops and timeouts",
        shadows=("aiohttp",),
    ),
    Suite(
        "mcp",
        ("tests/client", "tests/server", "tests/shared", "tests/issues", "-o", "addopts=-p anyio"),
        left_out="documentation and examples, which need a build of the documentation",
    ),
    Suite("hypercorn", ("tests", "-o", "addopts=", *NO_TRIO), left_out="what runs on Trio"),
    Suite(
        "redis",
        (
            *("-o", "addopts=", "--redis-url=redis://127.0.0.1:{port}/0"),
            *("-m", "not onlycluster and not redismod and not ssl and not multidb_integration"),
            *(
                f"tests/{each}.py"
                for each in (
                    *("test_background", "test_connection_pool", "test_lock", "test_monitor"),
                    *("test_multiprocessing", "test_pipeline", "test_pubsub", "test_retry"),
                    *("test_asyncio/test_connection", "test_asyncio/test_connection_pool"),
                    *("test_asyncio/test_cwe_404", "test_asyncio/test_lock"),
                    *("test_asyncio/test_monitor", "test_asyncio/test_pipeline"),
                    *("test_asyncio/test_pubsub", "test_asyncio/test_retry"),
                )
            ),
        ),
        left_out="what needs a cluster, TLS or a module, and the commands, which wait for nothing",
        server="redis",
    ),
    Suite(
        "django",
        (
            *("-p", "field_django", "-o", "python_files=test*.py"),
            *(
                f"tests/{each}"
                for each in (
                    *("asgi", "async", "backends", "builtin_server", "delete", "dispatch"),
                    *("file_uploads", "get_or_create", "handlers", "logging_tests", "mail"),
                    *("middleware", "servers", "sessions_tests", "signals", "test_client"),
                    *("test_runner", "transaction_hooks", "transactions", "utils_tests", "wsgi"),
                )
            ),
        ),
        left_out="all but the folders with servers, threads, loops, signals, handlers and "
        "transactions; the database is SQLite",
        shadows=("django",),
    ),
    Suite(
        "janus",
        ("tests", "-o", "addopts=", "--ignore=tests/test_benchmarks.py"),
        left_out="its benchmarks",
    ),
    Suite("waitress", ("tests", "-o", "addopts=")),
    Suite("aiosmtpd", ("aiosmtpd/tests", "-o", "addopts=", "-W", "ignore:pkg_resources")),
    Suite(
        "cheroot",
        (
            *("-o", "addopts=", "-p", "cheroot.test._pytest_plugin"),
            *(
                f"cheroot/test/test_{each}.py"
                for each in ("conn", "core", "dispatch", "makefile", "cli")
            ),
        ),
        left_out="all other modules: tests of theirs fail here and are run again, for minutes",
    ),
    Suite(
        "sqlalchemy",
        (
            *("-o", "addopts=-p warnings"),
            *(
                f"test/{each}"
                for each in (
                    *("base/test_concurrency.py", "engine/test_pool.py"),
                    *("engine/test_reconnect.py", "engine/test_transaction.py", "ext/asyncio"),
                )
            ),
        ),
        left_out="all but pools, transactions, greenlets and asyncio; the database is SQLite",
    ),
)
