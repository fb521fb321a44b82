"""Files that `otel-leaks report` reads: as exporters, pytest and the command itself write them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from otel_leaks.cli import main
from otel_leaks.errors import ReportFileError
from otel_leaks.model import Detection, Finding, Frame, Hidden, History, Origin, Sample, Site
from otel_leaks.report.document import Document, Entry
from otel_leaks.report.files import MAX_BYTES, documents_in, documents_of
from otel_leaks.report.snapshot import Counted, Pauses, Snapshot, snapshot_of
from otel_leaks.telemetry.events import Events
from otel_leaks.testing.report import Report
from support.exported import Records, Spans

STACK = (
    Frame("app.jobs.run", "/srv/app/jobs.py", 41),
    Frame("app.jobs.fetch", "/srv/app/jobs.py", 52),
)
ORIGIN = Origin("app.main", "/srv/app/main.py", 7)
SITE = Site(
    "thread",
    ("app.jobs.run", "app.jobs.fetch"),
    80,
    "0123456789ab",
    age_s=130.0,
    daemon=True,
    origin=ORIGIN,
    sample=Sample(7, STACK, "worker-1", 130.0, thread_id=4711),
)
DETECTION = Detection(
    Finding("thread", "threshold", 280, limit=200, sites=(SITE,), site_count=3), 0.0, 0.0, 280
)


def entry(document: Document) -> Entry:
    (found,) = document.entries
    return found


def exported(spans: Spans) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(encode_spans(spans.all))
    return found


def test_a_detection_of_spans_is_read_as_it_was_exported() -> None:
    spans = Spans()
    Events(spans.provider, max_frames=32, version="1").detected(DETECTION)
    (document,) = documents_of(json.dumps(exported(spans)).encode(), "spans.json")
    assert document.title == "detection: threshold of thread"
    assert document.facts[0].startswith("280 threads")
    assert document.left_out == 2
    assert replace(entry(document), hint="") == Entry(
        "thread",
        "app.jobs.run",
        80,
        "0123456789ab",
        # A stack trace has the names of functions alone.
        tuple(replace(frame, function=frame.name) for frame in STACK),
        name="worker-*",  # Numbers are masked in what is exported.
        age_s=130.0,
        origin=ORIGIN,
    )


def test_a_detection_shows_the_minutes_before_it() -> None:
    spans = Spans()
    past = History(kinds=(("thread", (40, None, 280)),), delays_s=(0.001, None, 2.5))
    events = Events(spans.provider, max_frames=32, version="1")
    events.detected(replace(DETECTION, history=past))
    (document,) = documents_of(json.dumps(exported(spans)).encode(), "spans.json")
    assert document.facts[1:3] == (
        "count minute by minute, newest last: 40 - 280",
        "longest delay of an event loop in ms, minute by minute: 1 - 2500",
    )


def test_a_detection_of_log_records_is_read_too() -> None:
    spans, records = Spans(), Records()
    events = Events(
        spans.provider, max_frames=32, version="1", emit="log", logger_provider=records.provider
    )
    events.detected(DETECTION)
    plain = MessageToDict(encode_logs(records.exporter.get_finished_logs()))
    (document,) = documents_of(json.dumps(plain).encode(), "logs.json")
    assert (entry(document).function, entry(document).count) == ("app.jobs.run", 80)


def test_a_file_of_a_collector_has_an_export_a_line() -> None:
    spans = Spans()
    events = Events(spans.provider, max_frames=32, version="1")
    events.detected(DETECTION)
    line = json.dumps(exported(spans))
    assert len(documents_of(f"{line}\n{line}\n".encode(), "spans.json")) == 2


def test_a_report_of_tests_is_read_and_its_message_names_the_test() -> None:
    report = json.loads(Report((SITE,), (Hidden("ignore_thread('a')", 2),)).to_json())
    for body in (
        [{"in": "t.py::test", "text": "", **report}],
        {"leaks": [{"in": "t.py::test", **report}]},
    ):
        (document,) = documents_of(json.dumps(body).encode(), "leaks.json")
        assert (document.title, document.facts) == (
            "leaks of t.py::test",
            ("80 threads", "ignored: 2 by ignore_thread('a')"),
        )
        assert entry(document).origin == ORIGIN
    (document,) = documents_of(json.dumps(report).encode(), "report.json")
    assert document.title == "leaks"


def test_the_file_of_leaks_json_of_pytest_is_read(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import threading

        event = threading.Event()

        def test_leaks():
            threading.Thread(target=event.wait, daemon=True).start()
        """
    )
    pytester.runpytest_subprocess("--leaks", "--leaks-json=leaks.json", "-o", "leaks_grace=1")
    (document,) = documents_in(pytester.path / "leaks.json")
    assert document.title.startswith("leaks of ")
    assert document.title.endswith("::test_leaks")
    assert (entry(document).kind, entry(document).count) == ("thread", 1)


def test_a_look_at_a_process_is_read() -> None:
    snapshot = Snapshot(
        42,
        "python app.py",
        "3.14.1",
        (Counted("thread", 80, (SITE,), 1),),
        (),
        (),
        Pauses(1, 0.0, 0.01),
    )
    plain = json.dumps(snapshot.to_json())
    (document,) = documents_of(plain.encode(), "ps.json")
    assert document == snapshot.document()
    assert snapshot_of(json.loads(plain)) == snapshot


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"5", "can't be read: an object is missing, got int"),
        (b"{}", "can't be read: an object with the keys none"),
        (b"[]", "has no detection in it"),
        (b'{"resourceSpans": []}', "has no detection in it"),
        (b'{"sites": [{"kind": "cat"}]}', "can't be read: Site.kind: must be one of 'thread'"),
        (b'{"sites": [5]}', "can't be read: Site must be an object, got int"),
        (b'{"sites": [{"kind": "thread"}]}', "can't be read: "),
        (b'{"format": "otel-leaks ps", "schema": 99}', "schema 99 is unknown, this reads 1"),
        (b'{"resourceSpans": [{"scopeSpans": 5}]}', "can't be read: "),
    ],
)
def test_what_is_none_of_these_is_an_error_that_says_which_are(data: bytes, wrong: str) -> None:
    with pytest.raises(ReportFileError) as raised:
        documents_of(data, "x.json")
    assert str(raised.value).startswith("x.json ")
    assert wrong in str(raised.value)
    assert str(raised.value).endswith(
        "it must be OTLP JSON with a detection, --leaks-json, Report.to_json(), or otel-leaks ps "
        "--json"
    )


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ReportFileError, match=r"has more than 256 MiB$"):
        documents_in(path)


def test_the_command_writes_a_file_in_the_format_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "report.json", tmp_path / "report.html"
    source.write_text(Report((SITE,)).to_json())
    assert main(["report", str(source), "--format", "html", "--output", str(output)]) == 0
    assert output.read_text().startswith("<!doctype html>")
    assert main(["report", str(source), "--format", "folded"]) == 0
    assert capsys.readouterr().out == "threads;app.jobs.run;app.jobs.fetch 80\n"


def test_a_file_that_is_missing_is_a_wrong_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.startswith("otel-leaks report: [Errno 2] No such file")
