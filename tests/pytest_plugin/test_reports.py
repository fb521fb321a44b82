"""What is told, to whom: people, machines, the next run."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from otel_leaks.report.formats.github import annotation
from pytest_plugin.conftest import Run
from support.schemas import validate

LEAKING = """
    from leaky import thread

    def test_leaking():
        thread()
"""


def test_ten_thousand_equal_leaks_are_told_in_under_3_kb(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import task

        @pytest.mark.asyncio
        async def test_leaking():
            for _ in range(10_000):
                task()
        """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(failed=1)
    out = result.stdout.str()
    message = out[out.index("10000 leaked asyncio tasks: leaky.waiting") :]
    message = message[: message.index("=====")]
    assert "1. 10000 asyncio tasks pending: leaky.waiting" in message
    assert len(message) < 3_000


def test_json_has_each_leak_with_who_is_charged(run: Run) -> None:
    run(
        """
        import pytest
        from leaky import thread

        thread("of-import")

        @pytest.fixture
        def leaking():
            thread("of-fixture")

        def test_leaking():
            thread("of-test")

        def test_fixture(leaking):
            pass
        """,
        "--leaks",
        "--leaks-json=leaks.json",
    )
    body = json.loads(Path("leaks.json").read_text())
    validate("leaks", body)
    found = [
        (each["in"], [site["sample"]["name"] for site in each["sites"]]) for each in body["leaks"]
    ]
    assert found == [
        ("test_it.py::test_leaking", ["of-test"]),
        ("fixture leaking (function) of test_it.py::test_fixture", ["of-fixture"]),
        ("at the end of the session", ["of-import"]),
    ]
    site = body["leaks"][0]["sites"][0]
    assert (site["kind"], site["count"], site["functions"][0]) == ("thread", 1, "leaky.stuck")
    assert site["origin"]["function"] == "leaky.thread"
    assert body["leaks"][0]["text"].startswith("1 leaked thread: leaky.stuck")


def test_json_of_a_clean_run_is_an_empty_list(run: Run) -> None:
    run("def test_it(): pass", "--leaks", "--leaks-json=leaks.json")
    assert json.loads(Path("leaks.json").read_text()) == {
        "schema": 1,
        "fingerprint_scheme": 1,
        "leaks": [],
    }


@pytest.mark.parametrize("mode", ["fail", "warn"])
def test_junit_xml_has_the_leaks_as_a_property_of_their_test(run: Run, mode: str) -> None:
    run(LEAKING + "\n    def test_clean(): pass\n", f"--leaks={mode}", "--junitxml=junit.xml")
    cases = {case.get("name"): case for case in ET.parse("junit.xml").iter("testcase")}
    properties = cases["test_leaking"].findall("properties/property")
    assert [each.get("name") for each in properties] == ["leaks"]
    body = json.loads(properties[0].get("value") or "")
    assert [(site["kind"], site["count"]) for site in body["sites"]] == [("thread", 1)]
    validate("report", body)
    assert cases["test_clean"].findall("properties/property") == []
    assert len(cases["test_leaking"].findall("failure")) == (mode == "fail")


def test_github_shows_each_leak_where_it_began(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = run(LEAKING + "\n    thread()", "--leaks")
    assert [line for line in result.stdout.lines if line.startswith("::")] == [
        "::error file=leaky.py,line=12,title=leak in test_it.py%3A%3Atest_leaking"
        "::1 thread leaky.stuck",
        "::error file=leaky.py,line=12,title=leak in at the end of the session"
        "::1 thread leaky.stuck",
    ]
    warned = run(LEAKING, "--leaks=warn")
    assert [line[:30] for line in warned.stdout.lines if line.startswith("::")] == [
        "::warning file=leaky.py,line=1"
    ]


def test_github_paths_begin_at_the_repository(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    result = run(LEAKING, "--leaks")
    result.stdout.fnmatch_lines([f"::error file={pytester.path.name}/leaky.py,line=12,*"])


def test_annotations_are_escaped_as_github_wants() -> None:
    site = {
        "kind": "thread",
        "count": 2,
        "functions": ["app.f%\r\n,:"],
        "origin": {"function": "f", "file": str(Path("a,b:c%.py").absolute()), "line": 3},
        "sample": None,
    }
    assert annotation("test_it.py::test[a,b\n]", site, "fail") == (
        "::error file=a%2Cb%3Ac%25.py,line=3,title=leak in test_it.py%3A%3Atest[a%2Cb%0A]"
        "::2 thread app.f%25%0D%0A,:"
    )


def test_an_annotation_without_any_place_has_none() -> None:
    site = {"kind": "event_loop", "count": 1, "functions": ["f"], "origin": None, "sample": None}
    assert annotation("t", site, "warn") == "::warning title=leak in t::1 event_loop f"


def test_the_next_format_is_a_file_and_a_line_in_the_list(run: Run) -> None:
    early = """
        import sys
        import types
        from otel_leaks import pytest_plugin

        counts = types.ModuleType("otel_leaks.report.formats.counts")
        counts.write = lambda leaks, *, fails: f"{len(leaks)} of a run that fails: {fails}"
        sys.modules[counts.__name__] = counts
        pytest_plugin.FORMATS += (
            pytest_plugin.Format("counts", "file", "write how many"),
            pytest_plugin.Format("counts", "log", "say how many"),
        )
    """
    result = run(LEAKING, "--leaks", "--leaks-counts=counts.txt", "-p", "early", early=early)
    assert Path("counts.txt").read_text() == "1 of a run that fails: True\n"
    result.stdout.fnmatch_lines(["1 of a run that fails: True"])


# The baseline


def test_known_leaks_pass_new_ones_fail_and_stale_ones_are_told(run: Run) -> None:
    both = LEAKING + (
        "\n    import threading\n    def other(): threading.Event().wait()\n"
        "    def test_other(): threading.Thread(target=other, daemon=True).start()\n"
    )
    baseline = ("--leaks", "--leaks-baseline=known.json")
    written = run(LEAKING, *baseline, "--leaks-baseline-update")
    written.assert_outcomes(passed=1)
    written.stdout.fnmatch_lines(["leaks: 1 fingerprints written to known.json"])
    body = json.loads(Path("known.json").read_text())
    validate("baseline", body)
    assert (body["schema"], body["fingerprint_scheme"]) == (1, 1)
    (mark, what), *_ = body["fingerprints"].items()
    assert what == {"kind": "thread", "function": "leaky.stuck"}

    known = run(both, *baseline)
    known.assert_outcomes(passed=1, failed=1)
    known.stdout.fnmatch_lines(
        [
            "1 leaked thread: test_it.other, *",
            "leaks: 1 known leaks of known.json were ignored",
        ]
    )

    stale = run("def test_it(): pass", *baseline)
    stale.assert_outcomes(passed=1)
    assert stale.ret == 0
    stale.stdout.fnmatch_lines([f"leaks: {mark} (leaky.stuck) is stale, remove it from known.json"])


def test_a_baseline_holds_at_the_end_of_the_session_too(run: Run) -> None:
    source = "from leaky import thread\nthread()\ndef test_it(): pass"
    baseline = ("--leaks", "--leaks-baseline=known.json")
    assert run(source, *baseline, "--leaks-baseline-update").ret == 0
    assert run(source, *baseline).ret == 0
    assert run(source, "--leaks").ret == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't read known.json: No such file *; write it with --leaks-baseline-update"),
        ("{", "known.json is not valid JSON: *"),
        ("[]", 'known.json must be an object with "fingerprints"; write it with *'),
        ('{"fingerprints": []}', 'known.json must be an object with "fingerprints"; *'),
        (
            '{"schema": 1, "fingerprint_scheme": 2, "fingerprints": {}}',
            "known.json has fingerprints of scheme 2, which would match nothing: this version of "
            "otel-leaks computes those of scheme 1; write it again with --leaks-baseline-update",
        ),
        (
            '{"schema": 2, "fingerprint_scheme": 1, "fingerprints": {}}',
            "known.json must be of schema 1 or older, got 2; update otel-leaks, or write it again "
            "with --leaks-baseline-update",
        ),
        (
            '{"schema": "1", "fingerprints": {}}',
            "known.json must be of schema 1 or older, got '1'; *",
        ),
    ],
)
def test_a_missing_or_broken_baseline_is_a_usage_error(
    run: Run, pytester: pytest.Pytester, text: str | None, message: str
) -> None:
    if text is not None:
        Path("known.json").write_text(text)
    result = run(LEAKING, "--leaks", "--leaks-baseline=known.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --leaks-baseline: {message}"])


def test_an_update_without_a_file_is_a_usage_error(run: Run) -> None:
    result = run(LEAKING, "--leaks", "--leaks-baseline-update")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --leaks-baseline-update needs --leaks-baseline FILE"])


# The selftest


def test_the_selftest_plants_and_finds_each_kind(run: Run) -> None:
    result = run("def test_it(): pass", "--leaks", "--leaks-selftest", quick=False)
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["leaks selftest: a leak of each kind was created and found"])


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("threads.ThreadSource", "a planted thread was not found"),
        ("tasks.TaskSource", "a planted asyncio_task was not found"),
    ],
)
def test_the_selftest_fails_when_a_source_finds_nothing(run: Run, broken: str, said: str) -> None:
    result = run(
        "def test_it(): pass",
        "--leaks",
        "--leaks-selftest",
        conftest=f"""
            import otel_leaks.census.tasks as tasks, otel_leaks.census.threads as threads
            from otel_leaks.model import Population

            {broken}.read = lambda self, look: Population(self.kind, 0)
        """,
    )
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"leaks selftest: {said}"])


# What other packages offer


def offer(pytester: pytest.Pytester, ignores: str) -> None:
    """Put a distribution on the path that offers ignores."""
    info = pytester.mkdir("pump-1.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pump\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[otel_leaks_ignores]\npump = pump:ignores\n")
    pytester.makepyfile(pump=f"from otel_leaks.testing import ignore_thread\n{ignores}\n")
    pytester.syspathinsert()


@pytest.mark.parametrize(
    "ignores",
    [
        'ignores = ignore_thread("pump-*")',
        'ignores = [ignore_thread("pump-*")]',
        'def ignores():\n    return [ignore_thread("pump-*")]',
    ],
)
def test_ignores_that_installed_packages_offer_hold(
    run: Run, pytester: pytest.Pytester, ignores: str
) -> None:
    source = 'from leaky import thread\ndef test_it(): thread("pump-1")'
    run(source, "--leaks").assert_outcomes(failed=1)
    offer(pytester, ignores)
    result = run(source, "--leaks")
    result.assert_outcomes(passed=1)
    unused = run("def test_it(): pass", "--leaks")
    assert "matched nothing" not in unused.stdout.str()


def test_an_offer_that_is_no_ignore_is_a_usage_error(run: Run, pytester: pytest.Pytester) -> None:
    offer(pytester, 'ignores = ["pump-*"]')
    result = run(LEAKING, "--leaks")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: entry points otel_leaks_ignores: *pump must offer ignores, got 'pump-[*]'"]
    )


ORPHANED = """
    import asyncio
    import pytest

    kept = []

    async def work(jobs):
        while True:
            await jobs.get()

    @pytest.mark.asyncio
    async def test_leaking():
        jobs = asyncio.Queue()
        {use}
        kept.append(asyncio.create_task(work(jobs)))
        await asyncio.sleep(0)
"""
PROOF = (
    "     proof    nothing but cancellation can end it: what it waits on is within reach of "
    "blocked tasks alone"
)


@pytest.mark.parametrize(
    ("use", "is_proved"), [("pass", True), ("kept.append(jobs)", False)], ids=["orphaned", "kept"]
)
def test_a_task_that_nothing_can_wake_is_told_to_be_so(run: Run, use: str, is_proved: bool) -> None:
    result = run(ORPHANED.format(use=use), "--leaks", plugins=("asyncio",))
    result.assert_outcomes(failed=1)
    assert (PROOF in result.stdout.str()) is is_proved


HELD = """
    import asyncio
    import threading
    import pytest

    sessions = {}

    class Session:
        def __init__(self):
            self.listeners = []

    @pytest.fixture(scope="module")
    def client():
        return Session()

    async def pump():
        await asyncio.sleep(3600)

    @pytest.mark.asyncio
    async def test_global():
        sessions["secret"] = Session()
        sessions["secret"].listeners.append(asyncio.create_task(pump()))

    @pytest.mark.asyncio
    async def test_fixture(client):
        client.listeners.append(asyncio.create_task(pump()))

    class TestOfClass:
        @pytest.mark.asyncio
        async def test_self(self):
            self.listener = asyncio.create_task(pump())

    @pytest.mark.asyncio
    async def test_nobody():
        asyncio.create_task(pump())
        await asyncio.sleep(0)
"""


def test_what_holds_a_leak_is_told_and_what_pytest_has_is_named_by_its_fixture(run: Run) -> None:
    result = run(HELD, "--leaks", plugins=("asyncio",))
    result.assert_outcomes(failed=4)
    found = [line for line in result.stdout.lines if line.startswith("     held by  ")]
    assert found == [
        "     held by  test_it.sessions['...'].listeners[…]",
        "     held by  fixture client.listeners[…]",
        "     held by  self.listener",
        "     held by  the event loop alone (a timer)",
    ]
