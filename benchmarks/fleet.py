"""
What a fleet costs the collector and Prometheus, and how long the ranking takes.

    python benchmarks/fleet.py [PROCESSES] [SERIES] [MINUTES]

Simulated processes (1,000) send what a process sends, that many series each (60), every 15 s, to
the real collector with examples/collector.yaml. The real Prometheus scrapes it with
examples/prometheus/prometheus.yaml and evaluates the rules beside it, the ranking every
15 s instead of every 5 minutes. Prints what both take, from Prometheus' own metrics and the
kernel's, and fails when the ranking does not name the functions that leak. Then an agent and a
gateway (examples/fleet/) carry what the processes send in one minute, and the agent keeps
it on disk while its gateway is down.
"""

from __future__ import annotations

import gzip
import os
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from json import loads
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from otel_leaks.detect.policies import OPENABLE
from otel_leaks.telemetry import names

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "tests"))

from e2e.receiving import Collector, eventually  # noqa: E402
from e2e.serving import Program, free_ports  # noqa: E402
from support.collector import collector  # noqa: E402
from support.prometheus import program  # noqa: E402

PROCESSES_OF_A_SERVICE = 20
EVERY_S = 15
LEAKING = 10
"""Each so many services one has a leak, in a quarter of its processes."""
POOLS = ("orders", "reports")
DURATIONS = """
prometheus_rule_group_last_duration_seconds or scrape_duration_seconds{job="otel-collector"} > 0
"""
DELAYS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""The buckets of the histogram."""


class Process:
    """What one process sends."""

    def __init__(self, number: int, series: int) -> None:
        self.service = number // PROCESSES_OF_A_SERVICE
        self.number = number
        self.leaks = self.service % LEAKING == 0 and number % 4 == 0
        others = 2 + 2 * len(OPENABLE) + 1 + 3 * len(POOLS) + 1
        self.functions = (series - others) // 2
        self.thread_functions = series - others - self.functions
        self.instance = str(uuid.uuid4())
        self.began_ns = time.time_ns()
        self.exports = 0

    @property
    def leak(self) -> str:
        return f"shop{self.service}.jobs.leaking"

    def points(self) -> Iterator[tuple[names.Metric, list[tuple[int, dict[str, str | bool]]]]]:
        """Give each metric but the histogram with its points."""
        some = self.number % 7
        tasks: list[tuple[int, dict[str, str | bool]]] = [
            (some + n, {names.FUNCTION: f"shop{self.service}.handlers.view_{n}"})
            for n in range(self.functions - 1)
        ]
        tasks.append((self.exports * 50 if self.leaks else 1, {names.FUNCTION: self.leak}))
        yield names.TASK_COUNT, tasks
        yield (
            names.THREAD_COUNT,
            [
                (
                    1 + n % 3,
                    {names.FUNCTION: f"shop{self.service}.jobs.run_{n}", names.DAEMON: True},
                )
                for n in range(self.thread_functions)
            ],
        )
        yield names.TASK_LIMIT, [(10_000, {})]
        yield names.THREAD_LIMIT, [(200, {})]
        pairs = [
            {names.KIND: kind, names.EVIDENCE: evidence} for kind, evidence in sorted(OPENABLE)
        ]
        yield names.OPEN, [(0, {**pair}) for pair in pairs]
        yield names.DETECTIONS, [(0, {**pair}) for pair in pairs]
        yield names.TASK_DESTROYED, [(0, {names.FUNCTION: "_OTHER"})]
        for metric in (names.POOL_THREADS, names.POOL_LIMIT, names.POOL_QUEUE):
            yield metric, [(some, {names.POOL: pool}) for pool in POOLS]

    def export(self) -> bytes:
        self.exports += 1
        now = time.time_ns()
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        about = {
            "service.name": f"shop{self.service}",
            "service.version": f"1.{self.number % 2}",
            "service.instance.id": self.instance,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": "1.45.2",
        }
        resource.resource.attributes.extend(_attributes(about))
        scope = resource.scope_metrics.add()
        scope.scope.name = names.SCOPE
        for metric, points in self.points():
            data = _described(scope.metrics.add(), metric)
            if metric.instrument == "observable_counter":
                data.sum.is_monotonic = True
                data.sum.aggregation_temporality = (
                    AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
                )
            to = data.sum if metric.instrument == "observable_counter" else data.gauge
            for value, attributes in points:
                point = to.data_points.add(
                    start_time_unix_nano=self.began_ns, time_unix_nano=now, as_int=value
                )
                point.attributes.extend(_attributes(attributes))
        histogram = _described(scope.metrics.add(), names.CENSUS_DURATION).histogram
        histogram.aggregation_temporality = (
            AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        )
        histogram.data_points.add(
            start_time_unix_nano=self.began_ns,
            time_unix_nano=now,
            count=self.exports,
            sum=self.exports * 0.003,
            bucket_counts=[0, self.exports, *(0 for _ in DELAYS[1:])],
            explicit_bounds=DELAYS,
            min=0.003,
            max=0.003,
        )
        body: bytes = request.SerializeToString()
        return body


def _described(data: Metric, metric: names.Metric) -> Metric:
    data.name, data.unit, data.description = metric.name, metric.unit, metric.description
    return data


def _attributes(given: dict[str, Any]) -> list[KeyValue]:
    return [
        KeyValue(
            key=key,
            value=AnyValue(bool_value=value)
            if isinstance(value, bool)
            else AnyValue(string_value=value),
        )
        for key, value in given.items()
    ]


class Prometheus:
    """With the shipped files, at the shipped pace but for the ranking."""

    def __init__(self, scraped: Collector, folder: Path) -> None:
        (port,) = free_ports(1)
        examples = PROJECT / "examples" / "prometheus"
        target = scraped.metrics_url.removeprefix("http://").removesuffix("/metrics")
        text = (examples / "prometheus.yaml").read_text("utf-8")
        text = text.replace("localhost:8889", target)
        text += f"\n  - job_name: itself\n    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
        (folder / "prometheus.yaml").write_text(text, "utf-8")
        rules = (examples / "rules.yaml").read_text("utf-8")
        (folder / "rules.yaml").write_text(rules.replace("interval: 5m", "interval: 15s"), "utf-8")
        self.url = f"http://127.0.0.1:{port}"
        self.program = Program(
            [
                str(program("prometheus", os.environ)),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            {},
            folder / "prometheus.log",
        )

    def get(self, path: str, **params: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(params)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return loads(answer.read())["data"]

    def is_ready(self) -> bool:
        assert self.program.alive()
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=5).close()
        except OSError:
            return False
        return True

    def query(self, expression: str) -> dict[str, float]:
        """Return the values of a vector by its labels, as text."""
        found = self.get("query", query=expression)["result"]
        return {
            " ".join(f"{k}={v}" for k, v in sorted(each["metric"].items()) if k != "__name__"): (
                float(each["value"][1])
            )
            for each in found
        }

    def number(self, expression: str) -> float:
        (value,) = self.query(expression).values()
        return value


def resident_mb(of: Program) -> float:
    lines = Path(f"/proc/{of.process.pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def cpu_s(of: Program) -> float:
    fields = Path(f"/proc/{of.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def send(to: Collector, body: bytes) -> None:
    headers = {"content-type": "application/x-protobuf"}
    request = urllib.request.Request(f"{to.http_endpoint}/v1/metrics", body, headers)
    urllib.request.urlopen(request, timeout=30).close()


def main(processes: int, series: int, minutes: float) -> int:
    fleet = [Process(number, series) for number in range(processes)]
    body = fleet[-1].export()
    print(f"{processes:,} processes of {series} series; an export is {len(body):,} bytes,", end=" ")
    print(f"{len(gzip.compress(body)):,} with gzip")
    binary = collector(os.environ, say=print)
    with ExitStack() as at_end:
        folder = Path(at_end.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        sink = Collector(binary, folder)
        at_end.callback(sink.program.stop)
        sink.wait_until_ready()
        prometheus = Prometheus(sink, folder)
        at_end.callback(prometheus.program.stop)
        eventually(prometheus.is_ready)
        pool = at_end.enter_context(ThreadPoolExecutor(4))

        began = time.monotonic()
        spent = {each: cpu_s(each) for each in (sink.program, prometheus.program)}
        peak_mb = dict.fromkeys(spent, 0.0)
        took: dict[str, list[float]] = {"scrape": []}
        round_ = 0
        while time.monotonic() - began < minutes * 60:
            round_ += 1
            for _ in pool.map(lambda process: send(sink, process.export()), fleet):
                pass
            for each in spent:
                each.alive()
                peak_mb[each] = max(peak_mb[each], resident_mb(each))
            for labels, value in prometheus.query(DURATIONS).items():
                group = labels.rpartition(";")[2].partition(" ")[0]
                took.setdefault(group if "rule_group" in labels else "scrape", []).append(value)
            time.sleep(max(0.0, began + round_ * EVERY_S - time.monotonic()))
        lasted = time.monotonic() - began

        (target,) = (
            each
            for each in prometheus.get("targets")["activeTargets"]
            if each["scrapePool"] == "otel-collector"
        )
        assert target["health"] == "up", target["lastError"]
        ours = 'job=~"shop.*"'
        print(f"series of ours in Prometheus  {prometheus.number(f'count({{{ours}}})'):12,.0f}")
        recorded = prometheus.number('count({__name__=~".*:.*"})')
        print(f"  of them recorded by rules   {recorded:12,.0f}")
        head = prometheus.number("prometheus_tsdb_head_series")
        print(f"series in Prometheus' head    {head:12,.0f}")
        for what, values in sorted(took.items()):
            print(f"{what:30}{statistics.median(values):12.2f} s, {max(values):.2f} s at most")
        for rule in sorted(_rules(prometheus), key=lambda rule: -rule["evaluationTime"])[:5]:
            print(f"  {rule['name']:46}{rule['evaluationTime'] * 1000:8.0f} ms")
        for name, each in (("collector", sink.program), ("Prometheus", prometheus.program)):
            print(
                f"{name:12}{resident_mb(each):8.0f} MB resident at the end, "
                f"{peak_mb[each]:.0f} MB at most, {(cpu_s(each) - spent[each]) / lasted:.2f} cores"
            )
        status = check(prometheus, fleet)
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        carry(binary, Path(name), fleet)
    return status


def carry(binary: Path, folder: Path, fleet: list[Process]) -> None:
    """Send one export of each process through an agent and a gateway, and into a queue."""
    examples = PROJECT / "examples"
    ports = {name: free_ports(3) for name in ("agent", "gateway", "sink")}
    to = {name: f"http://127.0.0.1:{each[1]}" for name, each in ports.items()}
    queue = folder / "queue"
    with ExitStack() as at_end:

        def start(name: str, *configs: str, **variables: str) -> Collector:
            (folder / name).mkdir(exist_ok=True)
            running = Collector(
                binary,
                folder / name,
                configs=[examples / each for each in configs],
                variables=variables,
                ports=ports[name],
            )
            at_end.callback(running.program.stop)
            running.wait_until_ready()
            return running

        sink = start("sink", "collector.yaml")
        gateway = start(
            "gateway",
            "fleet/gateway.yaml",
            METRICS_ENDPOINT=to["sink"],
            BACKEND_ENDPOINT=to["sink"],
        )
        agent = start(
            "agent",
            "collector-contrib.yaml",
            "fleet/agent.yaml",
            BACKEND_ENDPOINT=to["gateway"],
            QUEUE_DIRECTORY=str(queue),
        )
        pool = at_end.enter_context(ThreadPoolExecutor(4))

        def send_all() -> None:
            for _ in pool.map(lambda process: send(agent, process.export()), fleet):
                pass

        send_all()  # What the first ones cost is not what each costs.
        eventually(lambda: len(sink.metrics("python_thread_limit", "instance")) == len(fleet))
        before = {each: cpu_s(each.program) for each in (agent, gateway)}
        send_all()
        exports = fleet[0].exports

        def arrived() -> bool:
            counts = sink.metrics("python_leak_census_duration_seconds_count", "instance")
            return min(counts.values()) >= exports

        eventually(arrived)
        for name, each in (("agent", agent), ("gateway", gateway)):
            spent = (cpu_s(each.program) - before[each]) / len(fleet) * 1000
            print(
                f"{name:12}{resident_mb(each.program):8.0f} MB resident, {spent:.2f} ms an export"
            )
        gateway.program.stop()
        send_all()
        agent.program.stop()
        size = sum(each.stat().st_size for each in queue.rglob("*") if each.is_file())
        print(f"queue on disk{size / len(fleet):12,.0f} bytes an export")


def _rules(prometheus: Prometheus) -> Iterator[dict[str, Any]]:
    for group in prometheus.get("rules")["groups"]:
        yield from group["rules"]


def check(prometheus: Prometheus, fleet: list[Process]) -> int:
    """Compare the ranking with what was simulated."""
    leaking = {(each.leak, f"1.{each.number % 2}") for each in fleet if each.leaks}
    ranked = prometheus.query(f"topk({len(leaking)}, function:python_asyncio_task_count:rms)")
    named = set()
    for labels in ranked:
        at = dict(part.split("=", 1) for part in labels.split())
        named.add((at["code_function_name"], at["service_version"]))
    print(f"the ranking names {len(named & leaking)} of the {len(leaking)} that leak")
    return 0 if named == leaking else 1


if __name__ == "__main__":
    given = [float(each) for each in sys.argv[1:]]
    processes, series, minutes = (*given, *(1000.0, 60.0, 4.0)[len(given) :])
    sys.exit(main(int(processes), int(series), minutes))
