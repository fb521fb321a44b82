"""Real Prometheus and Alertmanager, with the examples as they are shipped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from e2e.receiving import Collector, eventually
from e2e.serving import Program, free_ports
from support.prometheus import ProgramMissing, program, with_otlp

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "EXAMPLES",
    "RULES",
    "WAYS",
    "Alertmanager",
    "Prometheus",
    "Webhook",
    "found",
    "reached",
    "run",
    "taking_otlp",
]

EXAMPLES = Path(__file__).parents[2] / "examples" / "prometheus"
RULES = EXAMPLES / "rules.yaml"

WAYS = ("prometheus.yaml", "prometheus-otlp.yaml")
"""How metrics come to Prometheus: from the collector that it scrapes, or straight over OTLP."""


def found(name: str) -> Path:
    """Return a program of Prometheus; without it a test fails in CI and is skipped elsewhere."""
    return _or_else(lambda: program(name, os.environ))


def taking_otlp(say: Callable[[str], None] = print) -> Path:
    """Return a Prometheus that takes OTLP; without it a test fails in CI and is skipped else."""
    return _or_else(lambda: with_otlp(os.environ, say=say))


def _or_else(find: Callable[[], Path]) -> Path:
    try:
        return find()
    except ProgramMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


def run(name: str, *arguments: str) -> tuple[int, str]:
    """Run a program of Prometheus; return its status and what it said, errors first."""
    done = subprocess.run([found(name), *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr + done.stdout


def at_the_pace_of_a_test(text: str) -> str:
    """Shorten what is scraped, evaluated, waited for or told each few seconds or minutes."""
    paced = (
        r"(?m)^( *(?:- )?(?:scrape_|evaluation_|group_)?(?:interval|wait|for): )(?:15s|30s|1m|5m)$"
    )
    return re.sub(paced, r"\g<1>1s", text)


def with_addresses(text: str, addresses: Mapping[str, str]) -> str:
    """Put free ports where the examples have the usual ones; each must be there."""
    for usual, real in addresses.items():
        assert usual in text, f"{usual} is not in the example"
        text = text.replace(usual, real)
    return text


class Server:
    """
    A program of Prometheus that runs until its block ends.

    Args:
        binary: The program.
        flags: Its command line, without where it listens.
        log: Takes what it says.
        cwd: The folder it runs in; None for that of the tests.
    """

    def __init__(self, binary: Path, *flags: str, log: Path, cwd: Path | None = None) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        command = [str(binary), f"--web.listen-address={self.address}", *flags]
        self.program = Program(command, {}, log, cwd=cwd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
        self.program.stop()

    def is_ready(self) -> bool:
        assert self.program.alive()
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


class Prometheus(Server):
    """
    A running Prometheus, with a shipped configuration and the rules.

    Args:
        folder: Takes its configuration, data and log.
        addresses: What stands in for the usual addresses of the configuration.
        example: The name of the configuration.
        binary: The program; None for the one that the machine has.
        flags: More of the command line.
    """

    def __init__(
        self,
        folder: Path,
        addresses: Mapping[str, str],
        *flags: str,
        example: str = "prometheus.yaml",
        binary: Path | None = None,
    ) -> None:
        config = with_addresses((EXAMPLES / example).read_text("utf-8"), addresses)
        (folder / "prometheus.yaml").write_text(at_the_pace_of_a_test(config), "utf-8")
        rules = at_the_pace_of_a_test(RULES.read_text("utf-8"))
        (folder / "rules.yaml").write_text(rules, "utf-8")
        super().__init__(
            binary or found("prometheus"),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            *flags,
            log=folder / "prometheus.log",
        )

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return the values of an instant vector by their labels, without the name."""
        answer = self.client.get("/api/v1/query", params={"query": expression}).raise_for_status()
        return {
            tuple(sorted((k, v) for k, v in each["metric"].items() if k != "__name__")): float(
                each["value"][1]
            )
            for each in answer.json()["data"]["result"]
        }

    def alerts(self) -> dict[str, dict[str, Any]]:
        answer = self.client.get("/api/v1/alerts").raise_for_status()
        return {each["labels"]["alertname"]: each for each in answer.json()["data"]["alerts"]}


@contextmanager
def reached(way: str, otelcol: Path, folder: Path) -> Iterator[tuple[Prometheus, dict[str, str]]]:
    """
    Run a Prometheus, and what metrics go through on their way to it.

    Args:
        way: One of ``WAYS``.
        otelcol: The collector.
        folder: Takes configurations, data and logs; blocks in ``data`` are read.

    Yields:
        Prometheus, and the variables that make a service export to it.
    """
    # Nobody listens there: the usual address may be that of an Alertmanager in use.
    addresses = {"localhost:9093": f"127.0.0.1:{free_ports(1)[0]}"}
    if way == "prometheus.yaml":
        collector = Collector(otelcol, folder)
        try:
            collector.wait_until_ready()
            addresses["localhost:8889"] = collector.metrics_address
            with Prometheus(folder, addresses) as prometheus:
                eventually(prometheus.is_ready)
                yield prometheus, collector.exporting("http/protobuf")
        finally:
            collector.program.stop()
        return
    receiving = "--web.enable-otlp-receiver"
    with Prometheus(folder, addresses, receiving, example=way, binary=taking_otlp()) as prometheus:
        eventually(prometheus.is_ready)
        yield (
            prometheus,
            {
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{prometheus.url}/api/v1/otlp/v1/metrics",
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            },
        )


class Alertmanager(Server):
    """A running Alertmanager with the shipped configuration; all it tells goes to *webhook*."""

    def __init__(self, folder: Path, webhook: str) -> None:
        text = (EXAMPLES / "alertmanager.yaml").read_text("utf-8")
        config = at_the_pace_of_a_test(with_addresses(text, {"localhost:9095": webhook}))
        (folder / "alertmanager.yaml").write_text(config, "utf-8")
        binary = found("prometheus-alertmanager")
        super().__init__(
            binary,
            f"--config.file={folder / 'alertmanager.yaml'}",
            f"--storage.path={folder / 'alertmanager'}",
            "--cluster.listen-address=",  # One alone listens for no others.
            log=folder / "alertmanager.log",
            cwd=binary.parents[2],
        )


class Webhook:
    """A server that keeps what Alertmanager tells it."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _keeping(self.told))
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def alerts(self, status: str) -> list[dict[str, Any]]:
        """Return the alerts told of with that status, each with its receiver."""
        return [
            {"receiver": each["receiver"], **alert}
            for each in list(self.told)
            for alert in each["alerts"]
            if alert["status"] == status
        ]


def _keeping(told: list[dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
