"""
A process with very much of everything; prints what its detections and metrics take, as JSON.

python crowded_service.py TASKS SITES DEPTH
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_leaks import LeakInstrumentor

TASKS, SITES, DEPTH = map(int, sys.argv[1:4])
ODD = "\"'\\\n\x1b[31m\u2028\u202e\udce9é大"
NAME = ODD * 1000

SOURCE = """
async def deep(left):
    if left:
        await deep(left - 1)
    else:
        await asyncio.get_running_loop().create_future()

def runs(left, stop):
    if left:
        runs(left - 1, stop)
    else:
        stop.wait()
"""


def made(number: int) -> dict[str, Any]:
    """Return functions of a file and of names of four kilobytes."""
    names: dict[str, Any] = {"asyncio": asyncio, "__name__": f"m{number}{'m' * 4000}"}
    exec(compile(SOURCE, f"/srv/{number}{ODD * 300}/app.py", "exec"), names)
    return names


def collect(records: InMemoryLogRecordExporter, meters: InMemoryMetricReader) -> MetricsData:
    """Wait until both kinds were detected and the counts are there; return the metrics."""
    while True:
        names = [each.log_record.event_name for each in records.get_finished_logs()]
        both = names.count("python.leak.detected") > 1 and names[-1] == "python.leak.sample"
        collected = meters.get_metrics_data() if both else None
        if collected is not None:
            return collected
        time.sleep(0.1)


async def main() -> None:
    stop = threading.Event()
    modules = [made(number) for number in range(SITES)]
    loop = asyncio.get_running_loop()
    tasks = []
    for number in range(TASKS):
        depth = DEPTH if number < 20 else 1
        coroutine = modules[number % SITES]["deep"](depth)
        tasks.append(loop.create_task(coroutine, name=NAME))
        if number % 1000 == 0:
            await asyncio.sleep(0)
    for number in range(20):
        target = modules[number % SITES]["runs"]
        threading.Thread(target=target, args=(DEPTH, stop), name=NAME, daemon=True).start()
    tracing, meters, logging = TracerProvider(), InMemoryMetricReader(), LoggerProvider()
    spans = InMemorySpanExporter()
    records = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    logging.add_log_record_processor(SimpleLogRecordProcessor(records))
    LeakInstrumentor().instrument(
        tracer_provider=tracing,
        meter_provider=MeterProvider([meters]),
        logger_provider=logging,
        emit="both",
        interval_s=0.1,
        thread_limit=10,
        task_limit=10,
        max_frames=200,
        max_sites=100,
    )
    collected = await asyncio.to_thread(collect, records, meters)
    await asyncio.to_thread(LeakInstrumentor().uninstrument)
    logged = records.get_finished_logs()
    sent: dict[str, Any] = {}
    for span in spans.get_finished_spans():
        attributes: Any = span.attributes
        context: Any = span.context
        own = [each for each in logged if each.log_record.span_id == context.span_id]
        stacks: list[Any] = [(each.attributes or {}).get("code.stacktrace") for each in span.events]
        sent[attributes["python.leak.kind"]] = {
            "count": attributes["python.leak.count"],
            "sites": attributes["python.leak.sites"],
            "span": len(encode_spans([span]).SerializeToString()),
            "records": len(encode_logs(own).SerializeToString()),
            "innermost": sorted({each.rpartition(", in ")[2] for each in stacks if each}),
        }
    sent["metrics"] = {"size": len(encode_metrics(collected).SerializeToString())}
    print(json.dumps(sent), flush=True)
    # To end 100,000 tasks in order would take longer than all before.
    os._exit(0)


asyncio.run(main())
