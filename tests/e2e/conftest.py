"""A collector and services for each test; all are ended with it, also when it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from e2e.receiving import Collector, eventually
from e2e.serving import Program, Serve, Service, free_ports, instrumented
from support.collector import CollectorMissing, collector
from support.prometheus import ProgramMissing, with_otlp

HERE = Path(__file__).parent


OTLP = "prometheus-otlp"
"""Tests that are called so need a Prometheus that has to be built."""

FOUND = pytest.StashKey[Path | CollectorMissing]()


def pytest_collection_finish(session: pytest.Session) -> None:
    # Not in a fixture: a first build takes longer than faulthandler_timeout.
    if any(item.get_closest_marker("e2e") for item in session.items):
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        try:
            found: Path | CollectorMissing = collector(
                os.environ, say=reporter.write_line if reporter else print
            )
        except CollectorMissing as missing:
            found = missing
        session.config.stash[FOUND] = found
        if any(OTLP in item.nodeid for item in session.items):
            # Whoever needs it says what is missing.
            with suppress(ProgramMissing):
                with_otlp(os.environ, say=reporter.write_line if reporter else print)


@pytest.fixture(scope="session")
def otelcol(pytestconfig: pytest.Config) -> Path:
    """The collector's binary; without one a test fails in CI and is skipped elsewhere."""
    found = pytestconfig.stash[FOUND]
    if isinstance(found, Path):
        return found
    if os.environ.get("CI"):
        pytest.fail(str(found), pytrace=False)
    pytest.skip(str(found))


@pytest.fixture
def receiver(otelcol: Path, tmp_path: Path) -> Iterator[Collector]:
    running = Collector(otelcol, tmp_path)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.program.stop()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """
    Starts a service: ``serve(variables, *arguments, server="uvicorn", app="leaky_service:app")``.

    *variables* are all that tells it of OpenTelemetry.
    """
    with ExitStack() as at_end:

        def start(
            variables: dict[str, str],
            *arguments: str,
            server: str = "uvicorn",
            app: str = "leaky_service:app",
        ) -> Service:
            (port,) = free_ports(1)
            where = (
                [f"--app-dir={HERE}", "--host=127.0.0.1", f"--port={port}"]
                if server == "uvicorn"
                else [f"--chdir={HERE}", f"--bind=127.0.0.1:{port}"]
            )
            program = Program(
                instrumented(server, *where, *arguments, app),
                variables,
                tmp_path / "service.log",
            )
            at_end.callback(program.stop)
            # A new connection for each request: with several workers each gets its turn.
            client = httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                timeout=60,
                limits=httpx.Limits(max_keepalive_connections=0),
            )
            at_end.callback(client.close)
            service = Service(program, client)
            eventually(service.answers)
            return service

        yield start
