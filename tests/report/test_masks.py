from __future__ import annotations

import base64
import json
import re
import string
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_leaks.report.masks import MAX_CHARS, masked, masked_path

# Names that programmers and libraries give


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MainThread", "MainThread"),
        ("Thread-5", "Thread-*"),
        ("Thread-5 (worker)", "Thread-* (worker)"),
        ("Thread-12 (serve_forever)", "Thread-* (serve_forever)"),
        ("Thread-1 (<lambda>)", "Thread-* (<lambda>)"),
        ("Dummy-3", "Dummy-*"),
        ("Timer-7", "Timer-*"),
        ("SpawnProcess-1", "SpawnProcess-*"),
        ("QueueFeederThread", "QueueFeederThread"),
        ("ExecutorManagerThread", "ExecutorManagerThread"),
        ("ThreadPoolExecutor-0_1", "ThreadPoolExecutor-*"),
        ("asyncio_3", "asyncio_*"),
        ("kafka-python-producer-1-network-thread", "kafka-python-producer-*-network-thread"),
        ("pymongo_server_monitor_thread", "pymongo_server_monitor_thread"),
        ("APScheduler", "APScheduler"),
        ("HTTPServer", "HTTPServer"),
        ("AnyIO worker thread", "AnyIO worker thread"),
        ("grpc-default-executor", "grpc-default-executor"),
        ("uvicorn-worker", "uvicorn-worker"),
        ("gunicorn-gthread", "gunicorn-gthread"),
        ("psycopg-pool-1-worker-0", "psycopg-pool-*-worker-*"),
        ("paho-mqtt-client", "paho-mqtt-client"),
        ("httpx-pool", "httpx-pool"),
        ("db-pool-reader", "db-pool-reader"),
        ("OtelPeriodicExportingMetricReader", "OtelPeriodicExportingMetricReader"),
        ("sentry.BackgroundWorker", "sentry.BackgroundWorker"),
        ("watchdog.observers.Observer", "watchdog.observers.Observer"),
        ("concurrent.futures.thread.ThreadPoolExecutor",) * 2,
        ("", ""),
    ],
)
def test_a_name_of_code_stays_recognisable(name: str, expected: str) -> None:
    assert masked(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("POST /orders", "POST /orders"),
        ("/orders/{order_id}", "/orders/{order_id}"),
        ("/orders/<int:order_id>/items", "/orders/<int:order_id>/items"),
        ("GET /{path:path}", "GET /{path:path}"),
        ("GET /static/*", "GET /static/*"),
        ("GET /users/1234/orders", "GET /users/*/orders"),
        ("orders.OrderService/Place", "orders.OrderService/Place"),
        ("/grpc.health.v1.Health/Check", "/grpc.health.v*.Health/Check"),
        ("run/app.tasks.send_mail", "run/app.tasks.send_mail"),
        ("websocket receive", "websocket receive"),
        ("SELECT orders", "SELECT orders"),
        ("redis LPUSH", "redis LPUSH"),
        ("HTTP GET", "HTTP GET"),
        ("process_order", "process_order"),
    ],
)
def test_an_operation_and_a_route_stay_readable(name: str, expected: str) -> None:
    assert masked_path(name) == expected


# Names with something in them that is nobody's business


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mail jane.doe@example.com", "mail *"),
        ("tenant-ACME_CORP", "tenant-*"),
        ("aB-ACME_CORP", "*"),
        ("ACME_CORP", "*"),
        ("job 4711 of 20", "job * of *"),
        ("worker 10.0.0.3:5432", "worker *"),
        ("worker [fe80::1]", "worker [*]"),
        ("dead:beef::cafe", "*"),
        ("pool-dead:beef::cafe", "pool-*"),
        ("nic aa-bb-cc-dd-ee-ff", "nic *"),
        ("db.internal.example.com", "*"),
        ("reader-db.example.org:5432", "*"),
        ("http://localhost:8080/", "http://*"),
        ("localhost", "*"),
        ("sync /home/jane/secrets", "sync /*"),
        ("sync C:\\Users\\jane", "sync C:\\*"),
        ("token=abc", "token=*"),
        ("deadbeefcafe", "*"),
        ("Task-größe", "Task-*"),
        ("zzzzzz", "*"),
        ("qwxzkj", "*"),
        ("a" * 17, "*"),
        ("password!", "*"),
        ("user_a1b2c3", "*"),
        ("\x1b[31m", "*[*"),
    ],
)
def test_what_is_no_word_of_code_is_masked(name: str, expected: str) -> None:
    assert masked(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GET https://u:hunter@host/reset?token=abc", "GET https://*"),
        ("GET //u:hunter@host/reset", "GET *"),
        ("GET /reset?token=abc", "GET /reset?*"),
        ("/RESET_TOKEN", "/*"),
        ("GET /reset/eyJhbGciOiJub25lIn0.eyJzdWIiOiJqYW5lIn0.", "GET /reset/*"),
    ],
)
def test_a_span_and_a_route_lose_what_may_be_a_secret(name: str, expected: str) -> None:
    assert masked_path(name) == expected


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _jwt(data: tuple[str, bytes]) -> str:
    claims = json.dumps({"sub": data[0]}).encode()
    return ".".join((_url64(b'{"alg":"HS256","typ":"JWT"}'), _url64(claims), _url64(data[1])))


def _of(alphabet: str, least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most)


BYTES = st.binary(min_size=16, max_size=48)
SECRETS = st.one_of(
    st.binary(min_size=6, max_size=32).map(bytes.hex),
    st.binary(min_size=6, max_size=32).map(lambda data: data.hex().upper()),
    st.uuids().map(str),
    st.uuids().map(lambda each: each.hex),
    BYTES.map(_base64),
    BYTES.map(_url64),
    st.tuples(st.text(max_size=20), BYTES).map(_jwt),
    st.emails(),
    st.ip_addresses().map(str),
    _of(string.digits, 5, 20),
    _of(string.digits, 12, 16).map(lambda text: f"{text[:4]} {text[4:8]} {text[8:12]} {text[12:]}"),
    _of(string.digits, 8, 11).map(lambda text: f"+{text[:2]} ({text[2:4]}) {text[4:]}"),
    _of(string.ascii_uppercase + "234567", 16, 16).map("AKIA".__add__),
    _of(string.ascii_letters + string.digits, 36, 36).map("ghp_".__add__),
    _of(string.ascii_uppercase, 8, 30),
    st.tuples(_of(string.ascii_uppercase, 1, 9), _of(string.ascii_uppercase, 4, 9)).map("_".join),
    st.tuples(_of(string.ascii_letters, 1, 12), _of(string.ascii_letters, 5, 20)).map(
        lambda pair: f"postgres://{pair[0]}:{pair[1]}@db/orders"
    ),
)
PLACES: list[Callable[[str], str]] = [
    "{}".format,
    "worker {}".format,
    "worker-{}".format,
    "{}-worker".format,
    "worker_{}".format,
    "worker ({})".format,
    "token={}".format,
    "Bearer {}".format,
    "GET /reset/{}".format,
    "GET /reset?token={}".format,
]
OWN = "workertokenBearerGETresetpostgreshttps"


def common(secret: str, said: str) -> int:
    """Return the length of the longest text that is in both."""
    return max(
        (
            end - start
            for start in range(len(secret))
            for end in range(start + 1, len(secret) + 1)
            if secret[start:end] in said
        ),
        default=0,
    )


@settings(derandomize=True, max_examples=1000, deadline=None)
@given(secret=SECRETS, place=st.sampled_from(PLACES))
@example(secret=str(uuid.UUID(int=0xABCDEFABCDEFABCDEFABCDEFABCDEFAB)), place=PLACES[0])
@example(secret="AKIAIOSFODNN7EXAMPLE", place=PLACES[1])
@example(secret="ABCDE-FGHIJ-KLMNO", place=PLACES[2])
def test_no_secret_that_has_a_shape_leaves_in_a_name(
    secret: str, place: Callable[[str], str]
) -> None:
    for mask in (masked, masked_path):
        own = place("").replace("{}", "")
        said = mask(place(secret))
        # The words around it stay; no more than four characters in a row are its own.
        for word in own.replace("/", " ").split():
            said = said.replace(word, " ")
        said = said.replace("postgres://", " ").replace("=", " ")
        assert common(secret, said) <= 4, said


@given(st.text())
def test_a_masked_name_is_one_short_printable_line_whatever_it_was(name: str) -> None:
    for said in (masked(name), masked_path(name)):
        assert said.isprintable()
        assert len(said) <= MAX_CHARS
        said.encode()


def test_a_name_of_ten_kilobytes_is_cut_between_words() -> None:
    secret = "a2" * 5000
    assert masked("worker " * 20 + secret).endswith("worker *")
    # Half a token may look like a word.
    assert "password" not in masked("x" * 396 + " password123456")[-12:]
    assert masked(secret) == "*"


def test_masking_again_changes_nothing() -> None:
    for name in ("Thread-5 (worker)", "mail jane@example.com", "ThreadPoolExecutor-0_1"):
        assert masked(masked(name)) == masked(name)


def test_the_table_of_the_page_on_security_is_what_happens() -> None:
    page = (Path(__file__).parents[2] / "SECURITY.md").read_text("utf-8")
    table = page.partition("| name | leaves as |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(.*)` \| `(.*)` \|$", table, re.MULTILINE)
    assert len(rows) == 11
    # Names of spans and routes have a path that stays.
    for name, expected in rows:
        mask = masked_path if name.startswith(("/", "GET", "POST")) else masked
        assert mask(name) == expected
