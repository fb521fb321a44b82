"""Reports of any stacks and names: always a text, and what must be one line is one."""

from __future__ import annotations

import json
import re
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from otel_leaks.detect.words import site_line
from otel_leaks.model import (
    Detection,
    Ended,
    Evidence,
    Finding,
    Frame,
    Hidden,
    Kind,
    Operation,
    Origin,
    Pool,
    Sample,
    Site,
    fingerprint,
)
from otel_leaks.report import text as report
from otel_leaks.report.as_json import leaks_json
from otel_leaks.report.outgoing import outgoing, shown_frame
from otel_leaks.report.sentences import resolution, sentence

words = st.text(max_size=30) | st.sampled_from(
    ["", "a\nb", "a\rb", "\x1b[2J", "a\u2028b", "\ud800", "a" * 5000, "\0", "asyncio.tasks.sleep"]
)
counts = st.integers(1, 10**12)
seconds = st.floats(0, 1e12)

frames = st.builds(Frame, words, words, st.integers(-1, 10**9))
samples = st.builds(
    Sample,
    counts,
    st.lists(frames, max_size=5).map(tuple),
    words,
    seconds,
    st.none() | st.booleans(),
    st.none() | words,
    st.none() | counts,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    backlog=st.none() | st.builds(Pool, counts, words, st.just((1, 2)), counts, counts),
)


def site(kind: Kind) -> st.SearchStrategy[Site]:
    return st.lists(words, min_size=1, max_size=4).flatmap(
        lambda functions: st.builds(
            Site,
            st.just(kind),
            st.just(tuple(functions)),
            counts,
            st.just(fingerprint(kind, tuple(functions))),
            seconds,
            st.none() | st.booleans(),
            st.none() | st.builds(Origin, words, words, st.integers(0, 10**9), st.none() | words),
            st.none() | samples,
            newest=st.none() | samples,
            operations=st.lists(
                st.builds(Operation, counts, counts, st.booleans(), words, words), max_size=3
            ).map(tuple),
            ended=st.none()
            | st.builds(Ended, counts, st.lists(seconds, min_size=1, max_size=3).map(tuple)),
        )
    )


kinds = st.sampled_from(get_args(Kind))
some_sites = kinds.flatmap(lambda kind: st.lists(site(kind), min_size=1, max_size=4))


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    kind = draw(kinds)
    return Finding(
        kind,
        draw(st.sampled_from(get_args(Evidence))),
        draw(counts),
        draw(st.none() | counts),
        draw(st.none() | st.just("0123456789ab")),
        draw(seconds),
        tuple(draw(st.lists(site(kind), min_size=1, max_size=3))),
        draw(counts),
        draw(counts),
        draw(seconds),
    )


def is_one_line(text: str) -> bool:
    return len(text.splitlines()) == 1


@given(findings(), seconds)
def test_what_is_said_of_a_finding_is_one_line(finding: Finding, open_s: float) -> None:
    finding = outgoing(finding, max_frames=32)
    detection = Detection(finding, opened_at=0.0, seen_at=open_s, peak=finding.count)
    assert is_one_line(sentence(finding))
    assert is_one_line(resolution(detection))
    assert all(is_one_line(site_line(each)) for each in finding.sites)


@given(some_sites, st.lists(st.builds(Hidden, words, counts), max_size=2))
def test_leaks_are_written_as_text_and_as_json(sites: list[Site], hidden: list[Hidden]) -> None:
    plain = [Site("thread", ("f",), each.count, "0" * 12) for each in sites]
    said, lines = report.leaks_text(sites, hidden), report.leaks_text(plain, hidden)
    never_left = r"asyncio tasks? destroyed|coroutines? never awaited"
    assert re.match(rf"\d+ leaked |\d+ (?:{never_left})|nothing leaked", said)
    assert len(said.splitlines()) >= len(lines.splitlines()) - len(hidden)
    body = json.loads(leaks_json(sites, hidden))
    assert [each["count"] for each in body["sites"]] == [each.count for each in sites]


@given(
    st.lists(frames, min_size=1, max_size=30).map(tuple), st.integers(1, 40), st.integers(0, 9000)
)
def test_a_stack_is_one_line_a_frame(
    stack: tuple[Frame, ...], max_frames: int, max_chars: int
) -> None:
    stack = tuple(map(shown_frame, stack))
    lines = report.stack_text(stack, max_frames=max_frames, max_chars=max_chars).splitlines()
    assert 1 <= len(lines) <= min(len(stack), max_frames)
