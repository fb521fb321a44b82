"""A walk along references takes the shortest way, in slices, and sees each object once."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from otel_leaks.runtime import walks
from otel_leaks.runtime.walks import SLICE, Walk


class Node:
    """Refers to some others."""

    def __init__(self, *others: Any) -> None:
        self.others = others


LOST = Node()
"""Nothing refers to it that is walked over."""


def walk(*targets: Any, goes_on: Callable[[], bool] = lambda: True, **options: Any) -> Walk:
    return Walk(set(map(id, targets)), lambda kind: kind is not type, goes_on, **options)


def nodes(path: list[Any] | None) -> list[Any]:
    return [each for each in path or () if type(each) is Node]


def test_the_shortest_way_is_taken_from_the_first_root_that_has_it() -> None:
    target = Node()
    near = Node(target)
    far = Node(Node(Node(target)))
    for roots, expected in (([far, near], [near]), ([Node(near), near, far], [near])):
        walked = walk(target)
        assert walked.run(roots) is True
        assert nodes(walked.path(id(target))) == expected


def test_each_of_several_targets_has_its_way() -> None:
    one, other, lost = Node(), Node(), Node()
    root = Node(Node(one), Node(Node(other)))
    walked = walk(one, other, lost)
    assert walked.run([root]) is True
    assert nodes(walked.path(id(one))) == [root, root.others[0]]
    assert nodes(walked.path(id(other))) == [root, root.others[1], root.others[1].others[0]]
    assert walked.path(id(lost)) is None
    assert walked.missing == {id(lost)}


@pytest.mark.parametrize("ids", [10, 10_000], ids=["many sets of ids", "one"])
def test_of_very_many_the_right_one_leads_to_it(monkeypatch: pytest.MonkeyPatch, ids: int) -> None:
    monkeypatch.setattr(walks, "MAX_IDS", ids)
    monkeypatch.setattr(walks, "REFERENTS", 7)
    target = Node()
    parents = [Node(Node(i)) for i in range(3 * SLICE)]
    # Twice, so that they are met again.
    root = Node(*parents, *parents)
    for number in (0, SLICE - 1, SLICE, 2 * SLICE + 1, 3 * SLICE - 1):
        parents[number].others = (Node(target),)
        walked = walk(target)
        walked.run([root])
        (_, parent, _) = nodes(walked.path(id(target)))
        assert parent is parents[number]
        parents[number].others = ()


def test_what_one_run_has_seen_the_next_does_not_follow_until_that_is_taken_back() -> None:
    target = Node()
    shared = Node(Node(target))
    first, second = Node(shared), Node(shared)
    walked = walk(target)
    walked.missing = {0}
    walked.run([first])
    walked.missing = {id(target)}
    walked.run([second])
    assert walked.path(id(target)) is None
    walked.missing = {0}
    walked.run([first])
    walked.retract()
    walked.missing = {id(target)}
    # The run before had seen it already, so that there was nothing to take back.
    assert walked.run([shared]) is True
    assert walked.path(id(target)) is None

    walked = walk(target)
    walked.missing = {0}
    walked.run([first])
    walked.retract()
    walked.missing = {id(target)}
    walked.run([second])
    assert nodes(walked.path(id(target))) == [second, shared, shared.others[0]]


def test_what_is_shut_and_what_is_not_followed_leads_nowhere() -> None:
    target = Node()
    shut = Node(target)
    walked = walk(target, shut=[id(shut)])
    walked.run([Node(shut)])
    assert walked.path(id(target)) is None

    class Other(Node):
        pass

    def refused(kind: type) -> bool:
        return kind is not Other

    def asked(kind: type) -> bool | Callable[[Any], bool]:
        return (lambda each: each is None) if kind is Other else True

    for follows in (refused, asked):
        walked = Walk({id(target)}, follows, lambda: True)
        walked.run([Node(Other(target))])
        assert walked.path(id(target)) is None


REUSED = """
import asyncio, gc, sys
from otel_leaks.runtime.walks import Walk, referents_of

async def main():
    for _ in range(300):  # Leaves iterators that asyncio keeps, and uses again.
        await asyncio.sleep(0.0001)

module = sys.modules["_asyncio"]
for _ in range(3):
    asyncio.run(main())
    assert [id(each) for each in referents_of([module])] == [id(vars(module))]
    Walk({id(main)}, lambda kind: True, lambda: True).run([asyncio])
    gc.collect()
"""


def test_what_a_module_keeps_for_itself_is_not_touched() -> None:
    subprocess.run([sys.executable, "-c", REUSED], check=True, timeout=120)


def test_it_asks_after_each_slice_whether_to_go_on() -> None:
    questions: list[int] = []

    def goes_on() -> bool:
        questions.append(1)
        return len(questions) < 5

    root = Node(*(Node(i) for i in range(10 * SLICE)))
    assert walk(LOST, goes_on=goes_on).run([root]) is False
    assert len(questions) == 5


def test_a_large_container_is_looked_at_in_parts() -> None:
    questions: list[int] = []

    def goes_on() -> bool:
        questions.append(1)
        return True

    walk(LOST, goes_on=goes_on).run([[Node(i) for i in range(10 * walks.REFERENTS)]])
    assert len(questions) > 10


def test_what_was_followed_lives_until_it_is_forgotten_and_no_longer() -> None:
    gone = Node()
    ref = weakref.ref(gone)
    holder = [gone]
    walked = walk(LOST)
    walked.run([holder])
    holder.clear()
    del gone
    assert ref() is not None
    pauses: list[int] = []
    walked.forget(lambda: pauses.append(1))
    gc.collect()
    assert ref() is None
    assert pauses
