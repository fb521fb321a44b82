"""The formats of `otel-leaks report`, from the documents that it reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from otel_leaks.cli.report import FORMATS as CHOICES
from otel_leaks.model import Frame, Origin, Pool, Site
from otel_leaks.report.document import Document, Entry, grown_first, merged
from otel_leaks.report.documents import FORMATS
from otel_leaks.report.snapshot import Counted, Snapshot

SCHEMAS = Path(__file__).parent / "schemas"
STACK = (
    Frame("shop.mail.Mailer.work", "/srv/shop/mail.py", 41),
    Frame("asyncio.queues.Queue.get", "/usr/lib/python3.12/site-packages/q.py", 158),
)
MAILER = Entry(
    "asyncio_task",
    "shop.mail.Mailer.work",
    9_812,
    "0123456789ab",
    STACK,
    name="mailer-1",
    age_s=130.0,
    awaited=False,
    waits_on="asyncio.Future",
    origin=Origin("shop.mail.Mailer.__init__", "/srv/shop/mail.py", 30),
    request="GET /orders",
    hint="end it",
)
PUMP = Entry("thread", "shop.pump", 3, "ba9876543210", keeps_process=True)
DOCUMENT = Document("leaks of shop", ("two sites",), (MAILER, PUMP), 4)
HOSTILE = replace(
    MAILER,
    function="<script>alert(1)</script>" + "x" * 10_000,
    name="\x1b[31m`@everyone`\n# [x](javascript:1)",
    stack=(Frame("</pre><img src=x onerror=1>;a b\nc", "/srv/```\n.py", 0),),
    hint='"><svg onload=1>&',
    origin=None,
)


def valid(schema: str, written: str) -> Any:
    found = json.loads(written)
    jsonschema.validate(found, json.loads((SCHEMAS / schema).read_text(encoding="utf-8")))
    return found


def test_the_command_knows_every_format() -> None:
    # The page is the viewer's.
    assert {*FORMATS, "html"} == set(CHOICES)


def test_text_says_all_that_is_known() -> None:
    assert FORMATS["text"](DOCUMENT).splitlines() == [
        "leaks of shop",
        "two sites",
        "",
        "1. 9812 asyncio tasks: shop.mail.Mailer.work",
        "     await     /srv/shop/mail.py:41 in shop.mail.Mailer.work",
        "               /usr/lib/python3.12/site-packages/q.py:158 in asyncio.queues.Queue.get",
        "     name      mailer-1, one of them",
        "     age       at least 2 min",
        "     waits on  asyncio.Future",
        "     awaited   no, nothing awaits it",
        "     created   /srv/shop/mail.py:30 in shop.mail.Mailer.__init__",
        "     request   GET /orders",
        "     hint      end it",
        '     ignore    ignore_fingerprint("0123456789ab", reason="...")',
        "",
        "2. 3 threads: shop.pump",
        "     exit      the process does not exit before it ends",
        '     ignore    ignore_fingerprint("ba9876543210", reason="...")',
        "",
        "and 4 more sites",
    ]


def test_folded_stacks_begin_with_the_kind_and_end_with_the_count() -> None:
    assert FORMATS["folded"](DOCUMENT) == (
        "asyncio_tasks;shop.mail.Mailer.work;asyncio.queues.Queue.get 9812\nthreads;shop.pump 3\n"
    )


def test_speedscope_has_a_profile_for_each_kind_and_is_valid() -> None:
    found = valid("speedscope.json", FORMATS["speedscope"](DOCUMENT))
    assert [(each["name"], each["endValue"]) for each in found["profiles"]] == [
        ("asyncio tasks", 9_812),
        ("threads", 3),
    ]
    frames = found["shared"]["frames"]
    (sample,) = found["profiles"][0]["samples"]
    assert [frames[i] for i in sample] == [
        {"name": f.function, "file": f.file, "line": f.line} for f in STACK
    ]


def test_sarif_is_valid_and_has_the_place_of_the_application() -> None:
    found = valid("sarif-2.1.0.json", FORMATS["sarif"](DOCUMENT))
    first, second = found["runs"][0]["results"]
    (location,) = first["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "file:///srv/shop/mail.py"},
        "region": {"startLine": 41},
    }
    assert first["partialFingerprints"] == {"otelLeaks/v1": "0123456789ab"}
    assert (first["level"], first["occurrenceCount"]) == ("warning", 9_812)
    rules = found["runs"][0]["tool"]["driver"]["rules"]
    assert rules[second["ruleIndex"]]["id"] == second["ruleId"] == "leak/thread"


def test_sarif_names_files_of_the_checkout_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stack = (Frame("app.run", str(tmp_path / "a b.py"), 7),)
    found = json.loads(FORMATS["sarif"](Document("d", (), (replace(MAILER, stack=stack),))))
    (location,) = found["runs"][0]["results"][0]["locations"]
    assert location["physicalLocation"]["artifactLocation"] == {"uri": "a%20b.py"}


def test_markdown_is_a_ticket() -> None:
    lines = FORMATS["markdown"](DOCUMENT).splitlines()
    assert lines[0] == "## leaks of shop"
    assert "### 1\\. 9812 asyncio tasks: `shop.mail.Mailer.work`" in lines
    assert '- ignore: `ignore_fingerprint("0123456789ab", reason="...")`' in lines


@pytest.mark.parametrize("name", [*FORMATS])
def test_names_of_any_kind_stay_short_and_on_one_line(name: str) -> None:
    written = FORMATS[name](Document("d", (), (HOSTILE,)))
    assert len(written) < 20_000
    assert "\x1b" not in written
    if name == "speedscope":
        valid("speedscope.json", written)
    if name == "sarif":
        valid("sarif-2.1.0.json", written)
    if name == "folded":
        assert re.fullmatch(r"[^ \n]+ 9812\n", written)
    if name == "markdown":
        assert written.count("```") == 2
        assert "@everyone" not in written
        assert "# [x]" not in written


@pytest.mark.parametrize("name", [*FORMATS])
def test_nothing_is_a_document_too(name: str) -> None:
    written = FORMATS[name](Document("nothing found"))
    checks: dict[str, Callable[[], object]] = {
        "speedscope": lambda: valid("speedscope.json", written),
        "sarif": lambda: valid("sarif-2.1.0.json", written),
    }
    checks.get(name, lambda: None)()
    assert written.endswith("\n") or name == "folded"


def test_what_grew_most_stands_first() -> None:
    before = {PUMP.key: 1, MAILER.key: 9_811}
    assert [(each.function, each.grown) for each in grown_first((MAILER, PUMP), before)] == [
        ("shop.pump", 2),
        ("shop.mail.Mailer.work", 1),
    ]


def test_what_shrank_or_stayed_keeps_its_order() -> None:
    before = {PUMP.key: 3, MAILER.key: 20_000}
    assert [each.function for each in grown_first((MAILER, PUMP), before)] == [
        "shop.mail.Mailer.work",
        "shop.pump",
    ]


def test_threads_of_one_function_that_two_lines_create_grow_apart() -> None:
    def look(first: int, second: int) -> Snapshot:
        counts = {12: first, 30: second}
        sites = tuple(
            Site(
                *("thread", ("shop.poll",), count, PUMP.fingerprint),
                origin=Origin("shop.start", "/srv/shop.py", line),
            )
            for line, count in counts.items()
        )
        return Snapshot(42, "", "3.12.1", (Counted("thread", first + second, sites, 2),))

    grown = grown_first(look(3, 10).document().entries, look(3, 9).counts())
    assert [(each.count, each.grown) for each in grown] == [(10, 1), (3, 0)]


def pools(*names: str, **said: Any) -> tuple[Pool, ...]:
    return tuple(Pool(n, name, (n,), 4, **{"queued": 0, **said}) for n, name in enumerate(names))


def test_pools_of_one_name_are_one_entry_and_those_with_jobs_that_wait_are_first() -> None:
    stuck = pools("stuck", queued=1, busy=1)
    found = Snapshot(42, "", "3.12.1", (), (*pools("mail", "mail", "job"), *stuck)).document()
    assert FORMATS["text"](found).splitlines()[-8:] == [
        "1. 1 pool: stuck",
        "     workers   1 of 1 busy, 4 at most; 1 job waits",
        "",
        "2. 2 pools: mail",
        "     workers   0 of 2 busy, 8 at most; 0 jobs wait",
        "",
        "3. 1 pool: job",
        "     workers   0 of 1 busy, 4 at most; 0 jobs wait",
    ]


def test_pools_that_stay_have_not_grown() -> None:
    before = Snapshot(42, "", "3.12.1", (), pools("mail", "mail", "job"))
    after = Snapshot(42, "", "3.12.1", (), pools("mail", "mail", "mail", "job"))
    assert [
        (each.function, each.grown)
        for each in grown_first(after.document().entries, before.counts())
    ] == [("mail", 1), ("job", 0)]


def test_several_documents_are_written_as_one() -> None:
    assert merged([DOCUMENT, replace(DOCUMENT, title="other")]) == Document(
        "2 reports",
        ("leaks of shop: two sites", "other: two sites"),
        (MAILER, PUMP, MAILER, PUMP),
        8,
    )
