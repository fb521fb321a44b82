from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otel_leaks.detect.words import duration, site_line
from otel_leaks.model import (
    Detection,
    End,
    Ended,
    Finding,
    Frame,
    Hidden,
    Kind,
    Operation,
    Origin,
    Pool,
    Sample,
    Site,
)
from otel_leaks.report.as_json import leaks_json
from otel_leaks.report.sentences import resolution, sentence
from otel_leaks.report.text import leaks_text, stack_text

STACK = (
    Frame("app.jobs.Worker.run", "/srv/app/jobs.py", 41),
    Frame("app.jobs.Worker.fetch", "/srv/app/jobs.py", 52),
    Frame("queue.Queue.get", "/usr/lib/python3/queue.py", 171),
)
SITE = Site(
    "thread",
    tuple(frame.function for frame in STACK),
    80,
    "0123456789ab",
    age_s=130.0,
    sample=Sample(1, STACK, "worker-1", 130.0),
)


DESTROYED = Site("destroyed_task", ("app.poll",), 3, "0" * 12, quiet_s=0.0)


def destroyed(site: Site, count: int) -> Finding:
    return Finding("destroyed_task", "destroyed", count, sites=(site,), site_count=1)


def outlived(*operations: Operation, count: int = 340) -> Finding:
    site = Site(
        "asyncio_task",
        SITE.functions,
        count,
        "0" * 12,
        sample=SITE.sample,
        operations=operations,
        ended=Ended(count, (61.0, 400.0)),
    )
    return Finding("asyncio_task", "outlived", count, sites=(site,), site_count=1)


def saturated(*, queued: int = 293, limit: int = 6, sites: tuple[Site, ...] = (SITE,)) -> Finding:
    pool = Pool(1, "mail", tuple(range(limit)), limit, queued, busy=limit, stuck_s=300.0)
    return Finding(
        "thread_pool", "saturated", queued, limit=limit, age_s=300.0, sites=sites, pool=pool
    )


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (
            Finding("thread", "threshold", 93, limit=50, sites=(SITE,), site_count=4),
            "93 threads alive, more than the limit of 50; most of them: 80 in "
            "app.jobs.Worker.run (/srv/app/jobs.py:41), the oldest for at least 2 min",
        ),
        (
            Finding("asyncio_task", "threshold", 2, limit=1),
            "2 asyncio tasks pending, more than the limit of 1",
        ),
        (Finding("thread", "threshold", 1), "1 thread alive"),
        (
            outlived(Operation(1, 1, name="POST /orders", route="/orders")),
            "340 asyncio tasks app.jobs.Worker.run (/srv/app/jobs.py:41) outlived POST /orders, "
            "the oldest by 6 min",
        ),
        (
            outlived(*(Operation(n, n, name=name) for n, name in enumerate(("a", "b", "a", "")))),
            "340 asyncio tasks app.jobs.Worker.run (/srv/app/jobs.py:41) outlived a and 1 other "
            "operation, the oldest by 6 min",
        ),
        (
            outlived(Operation(1, 1, name="POST", route="/orders"), count=1),
            "1 asyncio task app.jobs.Worker.run (/srv/app/jobs.py:41) outlived POST /orders, "
            "the oldest by 6 min",
        ),
        (
            destroyed(DESTROYED, 3),
            "3 asyncio tasks app.poll were destroyed while pending: nothing held a reference, so "
            "nothing could have woken them",
        ),
        (
            destroyed(replace(DESTROYED, sample=SITE.sample), 1),
            "1 asyncio task app.poll (/srv/app/jobs.py:41) was destroyed while pending: nothing "
            "held a reference, so nothing could have woken it",
        ),
        (
            outlived(Operation(1, 1)),
            "340 asyncio tasks app.jobs.Worker.run (/srv/app/jobs.py:41) outlived the spans "
            "in which they were created, the oldest by 6 min",
        ),
        (
            saturated(),
            "thread pool mail is saturated: all 6 threads have run the same jobs for at least "
            "5 min while 293 jobs wait; most of the running jobs: 80 in app.jobs.Worker.run "
            "(/srv/app/jobs.py:41), the oldest for at least 2 min",
        ),
        (
            saturated(queued=1, limit=1, sites=()),
            "thread pool mail is saturated: its only thread has run the same job for at least "
            "5 min while 1 job waits",
        ),
        (
            Finding(
                "thread",
                "growth",
                93,
                sites=(replace(SITE, pool="export"),),
                grown=30,
                grown_s=4800.0,
                pools=40,
            ),
            "40 thread pools named export, 30 more than 80 min ago: new ones keep coming, and none "
            "is shut down; most of their 93 threads: 80 in app.jobs.Worker.run "
            "(/srv/app/jobs.py:41), the oldest for at least 2 min",
        ),
        (
            Finding("thread", "growth", 93, sites=(SITE,), grown=61, grown_s=4800.0),
            "93 threads alive in app.jobs.Worker.run (/srv/app/jobs.py:41), 61 more than "
            "80 min ago: new ones keep coming, and old ones do not end",
        ),
        (
            Finding("thread", "growth", 93, sites=(SITE,), grown=0, grown_s=4800.0),
            "93 threads alive in app.jobs.Worker.run (/srv/app/jobs.py:41), no more than "
            "80 min ago: new ones keep coming, and old ones do not end",
        ),
    ],
)
def test_a_finding_is_said_in_one_sentence(finding: Finding, said: str) -> None:
    assert sentence(finding) == said


@pytest.mark.parametrize(
    ("own", "created"),
    [(False, ", created at /srv/app/rooms.py:12 in app.rooms.join"), (True, ""), (None, "")],
)
def test_what_stands_in_a_library_alone_is_said_with_who_created_it(
    own: bool | None, created: str
) -> None:
    frame = Frame("asyncio.locks.Event.wait", "/usr/lib/python3/locks.py", 213)
    site = Site(
        "asyncio_task",
        (frame.function,),
        80,
        "0" * 12,
        origin=Origin("app.rooms.join", "/srv/app/rooms.py", 12),
        sample=Sample(1, (frame,), "Task-1", 1.0, own=own),
    )
    finding = Finding("asyncio_task", "threshold", 93, limit=50, sites=(site,), site_count=4)
    assert sentence(finding) == (
        "93 asyncio tasks pending, more than the limit of 50; most of them: 80 in "
        f"asyncio.locks.Event.wait (/usr/lib/python3/locks.py:213{created})"
    )


def test_a_site_without_a_sample_is_said_without_a_place() -> None:
    site = Site("asyncio_task", ("app.poll",), 3, "0" * 12, age_s=40.0)
    assert site_line(site) == "3 in app.poll, the oldest for at least 40 s"


@pytest.mark.parametrize(
    ("kind", "limit", "said"),
    [
        ("thread", 50, "threads are back below the limit of 50 after 1 h 0 min; the peak was 93"),
        ("thread", None, "threads are back after 1 h 0 min; the peak was 93"),
        (
            "asyncio_task",
            50,
            "asyncio tasks are back below the limit of 50 after 1 h 0 min; the peak was 93",
        ),
    ],
)
def test_an_end_is_said_with_its_peak_and_how_long_it_took(
    kind: Kind, limit: int | None, said: str
) -> None:
    finding = Finding(kind, "threshold", 60, limit=limit)
    # 60 minutes are told in minutes up to two hours.
    detection = Detection(finding, opened_at=100.0, seen_at=100.0 + 3600, peak=93)
    assert resolution(detection) == said.replace("1 h 0 min", "60 min")


def test_the_end_of_a_saturation_says_how_many_jobs_wait() -> None:
    detection = Detection(saturated(queued=7), 0.0, 600.0, 293)
    assert resolution(detection) == (
        "thread pool mail takes jobs again after 10 min: 7 wait; the peak was 293"
    )


def test_the_end_of_a_growth_says_how_many_are_left() -> None:
    finding = Finding("thread", "growth", 3, sites=(SITE,), grown=3, grown_s=9000.0)
    assert resolution(Detection(finding, opened_at=100.0, seen_at=820.0, peak=93)) == (
        "threads in app.jobs.Worker.run no longer pile up after 12 min: 3 are left; the peak was 93"
    )


def test_a_stack_is_written_as_python_does_with_the_innermost_frame_last() -> None:
    assert stack_text(STACK, max_frames=32) == (
        '  File "/srv/app/jobs.py", line 41, in run\n'
        '  File "/srv/app/jobs.py", line 52, in fetch\n'
        '  File "/usr/lib/python3/queue.py", line 171, in get'
    )


@pytest.mark.parametrize(
    ("max_frames", "max_chars", "kept"),
    [
        (3, None, ["run", "fetch", "get"]),
        (2, None, ["fetch", "get"]),
        (1, None, ["get"]),
        (3, 10_000, ["run", "fetch", "get"]),
        (3, 140, ["run", "fetch", "get"]),
        (3, 139, ["fetch", "get"]),
        (3, 1, ["get"]),
    ],
)
def test_outer_frames_are_left_out_first_and_the_innermost_never(
    max_frames: int, max_chars: int | None, kept: list[str]
) -> None:
    text = stack_text(STACK, max_frames=max_frames, max_chars=max_chars)
    assert [line.rpartition(" ")[2] for line in text.splitlines()] == kept


def test_the_whole_stack_has_140_characters() -> None:
    # What the bounds of the test above stand on.
    assert len(stack_text(STACK, max_frames=3)) == 140


def test_a_stack_without_frames_is_an_empty_text() -> None:
    assert stack_text((), max_frames=3, max_chars=5) == ""


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0 s"),
        (0.4, "0 s"),
        (40.2, "40 s"),
        (119.4, "119 s"),
        (120.0, "2 min"),
        (719.0, "11 min"),
        (7199.0, "119 min"),
        (7200.0, "2 h 0 min"),
        (12_000.0, "3 h 20 min"),
    ],
)
def test_a_duration_is_written_as_a_person_would(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("/x/site-packages/lib.py", "created  /x/site-packages/lib.py:3 in lib.open, a library\n"),
        ("/srv/app/main.py", "created  /srv/app/main.py:3 in lib.open\n"),
    ],
)
def test_a_message_says_when_a_library_created_it(file: str, said: str) -> None:
    site = replace(SITE, origin=Origin("lib.open", file, 3))
    assert said in leaks_text([site], [])


def test_a_message_has_the_line_of_the_application_and_the_library_that_it_went_through() -> None:
    library = Frame(
        "apscheduler.executors.pool.Pool.start",
        "/x/site-packages/apscheduler/executors/pool.py",
        49,
    )
    origin = Origin("app.main", "/srv/app/main.py", 3, library=library)
    said = "created  /srv/app/main.py:3 in app.main, through apscheduler (executors/pool.py:49)\n"
    assert said in leaks_text([replace(SITE, origin=origin)], [])


def test_a_library_of_one_file_is_named_by_it() -> None:
    library = Frame("six.run", "/x/site-packages/six.py", 7)
    origin = Origin("app.main", "/srv/app/main.py", 3, library=library)
    assert ", through six (six.py:7)\n" in leaks_text([replace(SITE, origin=origin)], [])


def test_a_message_has_the_proof_where_there_is_one() -> None:
    sample = Sample(1, STACK, "Task-1", 0.0, is_orphaned=True)
    said = "     proof    nothing but cancellation can end it: "
    assert [
        said in leaks_text([replace(SITE, sample=each)], []) for each in (sample, SITE.sample)
    ] == [True, False]


def test_a_message_says_what_holds_a_leak_where_somebody_looked() -> None:
    sample = Sample(1, STACK, "Task-1", 0.0, held_by="app.jobs['...'].task")
    said = "     held by  app.jobs['...'].task\n"
    assert [
        said in leaks_text([replace(SITE, sample=each)], []) for each in (sample, SITE.sample)
    ] == [True, False]


def test_the_end_of_what_outlived_its_request_names_both() -> None:
    finding = outlived(Operation(1, 1, name="POST /orders"))
    assert resolution(Detection(finding, opened_at=10.0, seen_at=100.0, peak=400)) == (
        "the asyncio tasks app.jobs.Worker.run that outlived POST /orders are gone after 90 s; "
        "the peak was 400"
    )


@pytest.mark.parametrize(
    ("why", "left", "said"),
    [
        ("ended", 0, "have ended after 90 s: none is left; the peak was 400"),
        ("ended", 8, "have ended after 90 s: 8 are left; the peak was 400"),
        (
            "passing",
            1,
            "turned out to end by themselves after up to 20 min: 1 is left; the peak was 400",
        ),
    ],
)
def test_the_end_of_what_outlived_its_request_says_why_and_how_many_are_left(
    why: End, left: int, said: str
) -> None:
    finding = replace(outlived(Operation(1, 1, name="POST /orders")), count=left, ended=why)
    stayed = replace(finding.sites[0], ended=Ended(1, (1.0,), turnover_s=1200.0))
    finding = replace(finding, sites=(stayed,))
    assert resolution(Detection(finding, opened_at=10.0, seen_at=100.0, peak=400)) == (
        f"the asyncio tasks app.jobs.Worker.run that outlived POST /orders {said}"
    )


@pytest.mark.parametrize(
    ("one_of", "names", "said"),
    [
        (1, ["POST /orders"], "each POST /orders leaves one"),
        (40, ["POST /orders", "POST /orders"], "1 of 40 POST /orders leaves one"),
        (40, ["POST /orders", "GET /"], "1 of 40 such requests leaves one"),
        (1, [], "each such request leaves one"),
    ],
)
def test_what_outlived_says_how_many_of_the_requests_leave_one(
    one_of: int, names: list[str], said: str
) -> None:
    finding = outlived(*(Operation(n, n, name=name) for n, name in enumerate(names)))
    assert sentence(replace(finding, one_of=one_of)).endswith(f"; {said}")


def test_threads_that_outlived_are_called_threads() -> None:
    finding = replace(outlived(Operation(1, 1, name="POST /orders")), kind="thread", ended="ended")
    assert " threads app.jobs.Worker.run (" in sentence(finding)
    assert resolution(Detection(finding, 0.0, 90.0, 400)).startswith("the threads app.jobs")


def test_an_end_of_which_nothing_is_known_says_no_number() -> None:
    finding = replace(outlived(Operation(1, 1, name="POST /orders")), ended="absent")
    assert resolution(Detection(finding, opened_at=10.0, seen_at=100.0, peak=400)) == (
        "outlived of asyncio tasks in app.jobs.Worker.run was last confirmed 90 s after it opened; "
        "the peak was 400"
    )


def test_the_end_of_a_threshold_says_how_many_are_left() -> None:
    finding = Finding("thread", "threshold", 31, limit=50, ended="below")
    assert resolution(Detection(finding, opened_at=10.0, seen_at=100.0, peak=93)) == (
        "threads are back below the limit of 50 after 90 s: 31 are left; the peak was 93"
    )


def test_the_end_of_what_was_destroyed_says_how_many_there_were() -> None:
    finding = destroyed(DESTROYED, 3)
    assert resolution(Detection(finding, opened_at=0.0, seen_at=300.0, peak=7)) == (
        "no more asyncio tasks app.poll are destroyed while pending; there were 7"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the folder that one is in")
def test_a_path_is_absolute_when_the_current_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert " /srv/app/jobs.py:41 in app.jobs.Worker.run\n" in leaks_text((SITE,), ())


ODD = "x\n1. forged\x1b[31m\u2028\u202e\udce9\0"
SHOWN = r"x\n1. forged\x1b[31m\u2028\u202e\udce9\x00"


def test_a_message_is_made_of_its_own_lines_alone_whatever_the_names_are() -> None:
    stack = (Frame(ODD, f"/srv/{ODD}.py", 3),)
    origin = Origin(ODD, f"/srv/{ODD}.py", 7, scope=ODD)
    sample = Sample(1, stack, ODD, 1.0, waits_on=ODD)
    site = Site("thread", (ODD,), 2, "0" * 12, origin=origin, sample=sample)
    plain = replace(site, functions=("x",), origin=Origin("x", "/x", 7, scope="x"))
    plain = replace(plain, sample=Sample(1, (Frame("x", "/x", 3),), "y", 1.0, waits_on="x"))
    text, expected = (leaks_text((each,), (Hidden(ODD, 1),)) for each in (site, plain))
    assert len(text.split("\n")) == len(expected.split("\n"))
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.startswith(f"2 leaked threads: {SHOWN}, created at /srv/{SHOWN}.py:7")
    assert f"hidden: 1 by {SHOWN}" in text


def test_a_line_of_a_message_is_of_bounded_length() -> None:
    long = "f" * 100_000
    site = Site("thread", (long,), 2, "0" * 12, origin=Origin(long, long, 7))
    assert max(map(len, leaks_text((site,), ()).splitlines())) < 2100


def test_the_last_frame_of_a_stack_keeps_the_tail_of_its_file() -> None:
    stack = (Frame("app.f", "/srv/outer.py", 1), Frame("app.g", f"/srv/{'x' * 90}/jobs.py", 52))
    said = stack_text(stack, max_frames=9, max_chars=40)
    assert said == '  File "...xxxxx/jobs.py", line 52, in g'
    assert len(said) <= 40


def of_client(kind: Kind, function: str, count: int = 1, **more: Any) -> Site:
    """Return a site that a library created for one line of the application."""
    library = Frame("clientlib.Client.open", "/x/site-packages/clientlib/client.py", 7)
    origin = Origin("tests.test_a", "/srv/tests.py", 3, "tests.py::test_a", library=library)
    return Site(kind, (function,), count, "0" * 12, origin=origin, **more)


def test_what_a_library_left_for_one_line_is_reported_as_one_leak() -> None:
    stack = (
        Frame("clientlib.Client.ping", "/x/site-packages/clientlib/client.py", 9),
        Frame("asyncio.tasks.sleep", "/x/site-packages/asyncio/tasks.py", 649),
    )
    own = (*stack[:1], Frame("tests.answer", "/srv/tests.py", 12), stack[1])
    sites = [
        of_client("thread", "clientlib.Client.run", daemon=False),
        of_client("asyncio_task", "clientlib.Client.ping", 5, sample=Sample(1, stack, "T-1", 2.0)),
        of_client("asyncio_task", "clientlib.Client.call", sample=Sample(2, own, "T-2", 2.0)),
        of_client("child_process", "subprocess.Popen", sample=Sample(3, (), "sh, pid 7", 2.0)),
    ]
    assert leaks_text(sites, []) == (
        "clientlib: 1 leaked thread, 6 leaked asyncio tasks, 1 leaked child process, "
        "created at /srv/tests.py:3\n"
        "\n"
        "1. clientlib: 1 thread alive, 6 asyncio tasks pending, 1 child process not reaped\n"
        "     exit     the process can't exit before it ends: it is a non-daemon thread\n"
        "     created  /srv/tests.py:3 in tests.test_a, through clientlib (client.py:7)\n"
        "     in       tests.py::test_a\n"
        "     hint     it belongs to clientlib: close what you created with clientlib when you are "
        "done\n"
        "     left     1 thread: clientlib.Client.run\n"
        "              5 asyncio tasks: clientlib.Client.ping, in asyncio.tasks.sleep\n"
        "              1 asyncio task: clientlib.Client.call, at /srv/tests.py:12\n"
        "              1 child process: subprocess.Popen, sh, pid 7\n"
        '     ignore   ignore_created_by("clientlib.*", reason="...")'
    )


def test_a_leak_of_several_sites_is_held_by_what_the_application_calls_so() -> None:
    def held(serial: int, by: str) -> Sample:
        return Sample(serial, (), "", 0.0, held_by=by)

    sites = [
        of_client("thread", "clientlib.run", sample=held(1, "nothing: a running thread lives")),
        of_client("asyncio_task", "clientlib.ping", sample=held(2, "clientlib.tasks[…]")),
        of_client("asyncio_task", "clientlib.call", sample=held(3, "app.client._pool")),
    ]
    assert "     held by  app.client._pool\n" in leaks_text(sites, [])
    assert "held by" not in leaks_text(sites[:2], [])


def test_a_leak_of_very_many_sites_names_some_and_counts_the_others() -> None:
    sites = [of_client("asyncio_task", f"clientlib.f{i}", 2) for i in range(12)]
    lines = leaks_text(sites, []).splitlines()
    assert lines[0] == "clientlib: 24 leaked asyncio tasks, created at /srv/tests.py:3"
    assert lines[-3:-1] == [
        "              2 asyncio tasks: clientlib.f7",
        "              and 8 more at 4 other sites",
    ]


def test_what_a_second_library_created_for_it_is_ignored_by_the_function_that_is_yours() -> None:
    other = of_client("thread", "otherlib.run")
    assert other.origin is not None
    library = Frame("otherlib.start", "/x/site-packages/otherlib.py", 7)
    other = replace(other, origin=replace(other.origin, library=library))
    text = leaks_text([of_client("thread", "clientlib.run"), other], [])
    assert text.endswith('ignore   ignore_created_by("tests.test_a", reason="...")')


def test_several_leaks_are_counted_in_all_and_the_first_is_named() -> None:
    sites = [
        of_client("thread", "clientlib.run", 2),
        SITE,
        of_client("thread", "clientlib.wait"),
    ]
    lines = leaks_text(sites, []).splitlines()
    assert lines[0] == "83 leaked threads: 3 of clientlib, created at /srv/tests.py:3"
    assert [line for line in lines if line[:1].isdigit()][1:] == [
        "1. clientlib: 3 threads alive",
        "2. 80 threads alive: app.jobs.Worker.run",
    ]


def test_the_first_line_names_a_library_and_not_where_it_is_installed() -> None:
    origin = Origin("clientlib.Client.pong", "/x/site-packages/clientlib/client.py", 3)
    assert leaks_text([replace(SITE, origin=origin)], []).startswith(
        "80 leaked threads: app.jobs.Worker.run, created by clientlib (client.py:3)\n"
    )


def test_the_json_has_the_number_of_the_leak_that_a_site_is_part_of() -> None:
    sites = [of_client("thread", "a"), SITE, of_client("thread", "b")]
    body = json.loads(leaks_json(sites, []))
    assert [each["leak"] for each in body["sites"]] == [1, 2, 1]
