from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import otel_leaks
from otel_leaks.viewer import assets
from otel_leaks.viewer.arrivals import Link, Process, Read, Seen
from otel_leaks.viewer.desk import Desk, has_browser
from otel_leaks.viewer.page import Action
from otel_leaks.viewer.received import Counted, Counts
from viewer.test_store import ended, opened, read

STATIC = Path(otel_leaks.__file__).parent / "viewer" / "static"


class Done:
    def __init__(self) -> None:
        self.times = 0

    def do(self) -> str:
        self.times += 1
        return f"done {self.times}"


@pytest.fixture
def done() -> Done:
    return Done()


@pytest.fixture
def desk(done: Done) -> Iterator[Desk]:
    actions = {"fix": Action("Fix it", done.do)}
    with Desk("the title", port=0, grpc_port=0, program="app.py", actions=actions) as desk:
        yield desk


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = dict(response.headers)
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def ask(desk: Desk, path: str, method: str = "GET", **headers: str) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", desk.ports[0], timeout=30)) as connection:
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        return Answer(connection.getresponse())


class Stream:
    """The events of a page that is open."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def next(self) -> tuple[str, str, Any]:
        """Return the next event: its id, its name, its data."""
        fields = {"id": ""}
        while True:
            line = self._response.readline().decode()
            assert line, "the stream has ended"
            line = line.rstrip("\n")
            if not line and "data" in fields:
                return fields["id"], fields["event"], json.loads(fields["data"])
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value

    def rest(self) -> bytes:
        return self._response.read()


@contextmanager
def following(desk: Desk, **headers: str) -> Iterator[Stream]:
    with closing(http.client.HTTPConnection("127.0.0.1", desk.ports[0], timeout=30)) as connection:
        connection.request("GET", "/api/changes", headers=named(headers))
        response = connection.getresponse()
        assert (response.status, response.headers["content-type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )
        yield Stream(response)


def token(desk: Desk) -> str:
    return desk.address.partition("#token=")[2]


def test_every_file_of_the_page_is_served_and_loads_nothing_from_elsewhere(desk: Desk) -> None:
    files = [each for each in STATIC.rglob("*") if each.suffix in {".html", ".css", ".js", ".svg"}]
    names = sorted(each.relative_to(STATIC).as_posix() for each in files)
    assert names == sorted(assets.FILES)
    for name in names:
        answer = ask(desk, f"/{name}")
        assert (name, answer.status, answer.body) == (name, 200, (STATIC / name).read_bytes())
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        if not name.startswith("vendor/"):
            # But for the name of SVG's own namespace.
            text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
            assert re.findall(r"(?:https?:)?//[a-z]", text) == [], name
    assert ask(desk, "/").body == (STATIC / "index.html").read_bytes()


def test_the_page_reads_no_html_from_anybody() -> None:
    for path in STATIC.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function",
            path.read_text("utf-8"),
        ), path.name


def test_a_page_that_opens_gets_all_and_then_what_changes(desk: Desk) -> None:
    desk.store.take(read(1.0, ("a", 2), ("b", 1)))
    with following(desk) as stream:
        assert stream.next() == (
            "",
            "about",
            {
                "title": "the title",
                "http": desk.http,
                "grpc": desk.grpc,
                "program": "app.py",
                "actions": [["fix", "Fix it"]],
            },
        )
        number, name, data = stream.next()
        assert (number, name) == (f"{desk.store.epoch}-1", "changes")
        (process,) = data["processes"]
        assert (process["service"], process["names"], process["all"], process["readings"]) == (
            "shop",
            ["a", "b"],
            True,
            [[1.0, {"asyncio_task": [3, 50, [0, 2, 1, 1]]}]],
        )
        desk.store.take(read(2.0, ("b", 7)))
        _, _, data = stream.next()
        (process,) = data["processes"]
        assert (process["names"], process["all"], process["readings"]) == (
            None,
            False,
            [[2.0, {"asyncio_task": [7, 50, [1, 7]]}]],
        )
        desk.store.take(opened("1" * 16))
        _, _, data = stream.next()
        (finding,) = data["findings"]
        assert (finding["evidence"], finding["count"], finding["function"], finding["ended"]) == (
            "threshold",
            60,
            "shop.post",
            None,
        )


def test_a_page_that_comes_back_gets_what_it_missed(desk: Desk) -> None:
    desk.store.take(read(1.0, ("a", 1)))
    desk.store.take(opened("1" * 16))
    desk.store.take(ended())
    with following(desk, Last_Event_ID=f"{desk.store.epoch}-2") as stream:
        stream.next()
        _, _, data = stream.next()
        assert [each["ended"]["message"] for each in data["findings"]] == ["over"]
        assert data["processes"][0]["readings"] == []
    for unknown in ("0123abcd-2", "nonsense", "-1", f"{desk.store.epoch}-x"):
        with following(desk, Last_Event_ID=unknown) as stream:
            stream.next()
            _, _, data = stream.next()
            assert len(data["processes"][0]["readings"]) == 1


def test_streams_end_with_the_desk(done: Done) -> None:
    desk = Desk("t", port=0)
    with desk:
        connection = http.client.HTTPConnection("127.0.0.1", desk.ports[0], timeout=30)
        connection.request("GET", "/api/changes")
        stream = Stream(connection.getresponse())
        stream.next()
        stream.next()
    with closing(connection):
        assert stream.rest() == b""


def test_a_finding_has_its_sites_its_traces_and_what_to_copy(desk: Desk) -> None:
    linked = Link("a" * 32, "b" * 16)
    desk.store.take(
        Seen(Process("shop", "1"), linked, "", "POST /orders", 1.0, 0.5, is_error=False)
    )
    desk.store.take(opened("1" * 16, links=(linked, Link("c" * 32, "d" * 16))))
    number = desk.store.since(0).findings[0].number
    found = ask(desk, f"/api/findings/{number}").json()
    (site,) = found["sites"]
    assert site["ignore"] == 'ignore_fingerprint("a1b2c3d4e5f6", reason="...")'
    assert "def test_post_is_not_left_behind" in site["test"]
    assert found["markdown"].startswith("## a leak\n")
    assert [(each["id"], [s["name"] for s in each["spans"]]) for each in found["traces"]] == [
        ("a" * 32, ["POST /orders"]),
        ("c" * 32, []),
    ]
    assert ask(desk, f"/api/traces/{'a' * 32}").json()["spans"][0]["duration"] == 0.5
    assert ask(desk, "/api/findings/999").status == 404


@pytest.mark.parametrize("given", [None, "", "wrong", "naïve"])
def test_what_changes_anything_needs_the_token(desk: Desk, done: Done, given: str | None) -> None:
    headers = {} if given is None else {"X_Token": given}
    assert ask(desk, "/api/actions/fix", "POST", **headers).status == 403
    assert done.times == 0


def test_with_the_token_a_button_does_what_it_says(desk: Desk, done: Done) -> None:
    assert ask(desk, "/api/actions/fix", "POST", X_Token=token(desk)).json() == {"said": "done 1"}
    assert ask(desk, "/api/actions/other", "POST", X_Token=token(desk)).status == 404
    assert ask(desk, "/api/actions/fix", X_Token=token(desk)).status == 405
    assert done.times == 1


@pytest.mark.parametrize("path", ["/", "/main.js", "/api/changes", "/api/findings/1"])
def test_pages_of_others_get_nothing(desk: Desk, path: str) -> None:
    assert ask(desk, path, Host="evil.example").status == 403
    assert ask(desk, path, Origin="http://evil.example").status == 403


@pytest.mark.parametrize(
    "path", ["/../page.py", "/vendor/../../page.py", "/%2e%2e/page.py", "/x.js"]
)
def test_no_other_file_is_served(desk: Desk, path: str) -> None:
    assert ask(desk, path).status == 404


def test_a_port_that_is_taken_leaves_the_next_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Desk("t", port=port, grpc_port=port) as desk:
            http_port, grpc_port = desk.ports
            assert grpc_port is not None
            assert len({port, http_port, grpc_port}) == 3
            assert ask(desk, "/").status == 200


def test_grpc_is_received_too(desk: Desk) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(desk.grpc, insecure=True)))
    provider.get_tracer("t").start_span("over gRPC").end()
    span = provider.get_tracer("t").start_span("again")
    span.end()
    provider.shutdown()
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert [each.name for each in desk.store.trace(trace_id)] == ["again"]


def test_many_threads_may_send_at_once(desk: Desk) -> None:
    def send(number: int) -> None:
        process = Process("shop", str(number))
        for at in range(1, 51):
            desk.store.take(
                Read(process, Counts(float(at), (Counted("thread", at, None, (("f", at),)),)))
            )

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [len(each.readings) for each in desk.store.since(0).processes] == [50] * 8


@pytest.mark.skipif("sys.platform in ('win32', 'darwin')")
def test_a_browser_is_opened_only_where_somebody_sees_it() -> None:
    assert not has_browser({})
    assert has_browser({"DISPLAY": ":0"})
    assert has_browser({"WAYLAND_DISPLAY": "wayland-0"})
    assert not has_browser({"DISPLAY": ":0", "CI": "true"})
