"""configure(): in subprocesses, because global providers are set once a process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from otel_leaks import configure
from otel_leaks.telemetry.otlp import missing_providers

PRELUDE = """
import logging; logging.disable()
from opentelemetry import _logs, metrics, trace
from otel_leaks import configure

def exporters():
    tracing = trace.get_tracer_provider()
    (processor,) = tracing._active_span_processor._span_processors
    metering = metrics.get_meter_provider()
    (reader,) = metering._measurement_consumer._reader_storages
    logs = _logs.get_logger_provider()
    (log_processor,) = logs._multi_log_record_processor._log_record_processors
    return [
        processor._batch_processor._exporter,
        reader._exporter,
        log_processor._batch_processor._exporter,
    ]

def close():
    import os
    os._exit(0)
"""


def run(program: str, **environ: str) -> list[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PRELUDE + textwrap.dedent(program) + "\nimport sys\nsys.stdout.flush()\nclose()\n",
        ],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={**clean, **environ},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_all_three_providers_are_set_where_there_are_none() -> None:
    told = run("""
        configure()
        print(*(type(each).__module__ + "." + type(each).__name__ for each in (
            trace.get_tracer_provider(), metrics.get_meter_provider(),
            _logs.get_logger_provider())), sep="\\n")
    """)
    assert [line.rpartition(".")[2] for line in told] == [
        "TracerProvider",
        "MeterProvider",
        "LoggerProvider",
    ]
    assert [line for line in told if not line.startswith("opentelemetry.sdk.")] == []


@pytest.mark.parametrize("mine", ["trace", "metrics", "_logs"])
def test_a_provider_that_is_set_stays(mine: str) -> None:
    told = run(f"""
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.trace import TracerProvider
        apis = {{
            "trace": (trace.set_tracer_provider, trace.get_tracer_provider, TracerProvider),
            "metrics": (metrics.set_meter_provider, metrics.get_meter_provider, MeterProvider),
            "_logs": (_logs.set_logger_provider, _logs.get_logger_provider, LoggerProvider),
        }}
        set_provider, _, make = apis[{mine!r}]
        own = make()
        set_provider(own)
        configure()
        print([get() is own for _, get, _ in apis.values()])
        print([type(get()).__name__ for _, get, _ in apis.values()])
    """)
    assert told == [
        str([name == mine for name in ("trace", "metrics", "_logs")]),
        "['TracerProvider', 'MeterProvider', 'LoggerProvider']",
    ]


def test_configuring_twice_changes_nothing() -> None:
    told = run("""
        configure("http://localhost:4317")
        before = exporters()
        configure("http://localhost:4318")
        print([a is b for a, b in zip(before, exporters())])
    """)
    assert told == ["[True, True, True]"]


@pytest.mark.parametrize(
    ("call", "environ", "form", "endpoints"),
    [
        ("configure()", {}, "grpc", ["localhost:4317"] * 3),
        ("configure('http://c:4317')", {}, "grpc", ["c:4317"] * 3),
        (
            "configure('http://c:4318')",
            {},
            "http",
            [f"http://c:4318/v1/{signal}" for signal in ("traces", "metrics", "logs")],
        ),
        (
            "configure('http://c:4318/')",
            {},
            "http",
            [f"http://c:4318/v1/{signal}" for signal in ("traces", "metrics", "logs")],
        ),
        (
            "configure('https://c/otlp')",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http",
            [f"https://c/otlp/v1/{signal}" for signal in ("traces", "metrics", "logs")],
        ),
        (
            "configure('http://c:4318')",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "grpc",
            ["c:4318"] * 3,
        ),
        (
            "configure()",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:4318"},
            "http",
            [f"http://e:4318/v1/{signal}" for signal in ("traces", "metrics", "logs")],
        ),
        (
            "configure('http://c:4317')",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:4318"},
            "grpc",
            ["c:4317"] * 3,
        ),
    ],
)
def test_the_protocol_follows_the_variable_or_the_port(
    call: str, environ: dict[str, str], form: str, endpoints: list[str]
) -> None:
    told = run(
        f"""
        {call}
        modules = {{type(each).__module__ for each in exporters()}}
        print(sorted({{"grpc" if ".grpc." in name else "http" for name in modules}}))
        print([each._endpoint for each in exporters()])
        """,
        **environ,
    )
    assert told == [str([form]), str(endpoints)]


def test_http_loads_no_grpc() -> None:
    told = run("""
        import sys
        configure("http://localhost:4318")
        print("grpc" in sys.modules)
    """)
    assert told == ["False"]


@pytest.mark.parametrize(
    ("call", "environ", "name"),
    [
        ("configure(service_name='shop')", {}, "shop"),
        ("configure(service_name='shop')", {"OTEL_SERVICE_NAME": "env"}, "shop"),
        ("configure()", {"OTEL_SERVICE_NAME": "env"}, "env"),
    ],
)
def test_the_service_is_named_by_the_argument_or_the_variable(
    call: str, environ: dict[str, str], name: str
) -> None:
    told = run(
        f"""
        {call}
        print({{each.resource.attributes["service.name"] for each in (
            trace.get_tracer_provider(), _logs.get_logger_provider())}}
            | {{metrics.get_meter_provider()._sdk_config.resource.attributes["service.name"]}})
        """,
        **environ,
    )
    assert told == [str({name})]


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"endpoint": 4317}, TypeError, "endpoint must be a str or None, got 4317"),
        ({"service_name": b"x"}, TypeError, "service_name must be a str or None, got b'x'"),
        (
            {"endpoint": "localhost:4317"},
            ValueError,
            "endpoint must be a URL such as http://localhost:4317, got 'localhost:4317'; "
            "leave it out to take OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        (
            {"endpoint": ""},
            ValueError,
            "endpoint must be a URL such as http://localhost:4317, got ''; "
            "leave it out to take OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        (
            {"endpoint": "ftp://host:21"},
            ValueError,
            "endpoint must be a URL such as http://localhost:4317, got 'ftp://host:21'; "
            "leave it out to take OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ],
)
def test_a_bad_argument_raises_and_sets_nothing(
    arguments: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error) as caught:
        configure(**arguments)
    assert str(caught.value) == told
    assert missing_providers() == ("TracerProvider", "MeterProvider", "LoggerProvider")


def test_an_unknown_protocol_is_an_error_that_names_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(ValueError) as caught:
        configure()
    assert str(caught.value) == (
        "OTEL_EXPORTER_OTLP_PROTOCOL must be one of grpc, http/protobuf, got 'http/json'; "
        "leave it out for grpc"
    )
    assert missing_providers() == ("TracerProvider", "MeterProvider", "LoggerProvider")


def test_what_is_missing_is_logged_until_it_is_set() -> None:
    told = run("""
        from opentelemetry.sdk.metrics import MeterProvider
        from otel_leaks.telemetry.otlp import missing_providers
        print(missing_providers())
        metrics.set_meter_provider(MeterProvider())
        print(missing_providers())
        configure()
        print(missing_providers())
    """)
    assert told == [
        "('TracerProvider', 'MeterProvider', 'LoggerProvider')",
        "('TracerProvider', 'LoggerProvider')",
        "()",
    ]
