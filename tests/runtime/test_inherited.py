from __future__ import annotations

from otel_leaks.runtime.inherited import Inherited


def test_in_the_process_that_it_was_made_in_nothing_is_inherited() -> None:
    inherited = Inherited(lambda: ["task"], pid=lambda: 1)
    inherited.settle()
    assert not inherited
    assert "task" not in inherited


def test_what_is_there_when_a_child_settles_is_the_parents_and_is_read_once() -> None:
    reads = []
    tasks = ["parent's"]
    pid = 1

    def read() -> list[str]:
        reads.append(True)
        return list(tasks)

    inherited = Inherited(read, pid=lambda: pid)
    pid = 2
    inherited.settle()
    tasks.append("child's")
    inherited.settle()
    assert (len(reads), "parent's" in inherited, "child's" in inherited) == (1, True, False)


def test_a_child_of_a_child_inherits_what_is_there_then() -> None:
    tasks = ["first"]
    pid = 1
    inherited = Inherited(lambda: tasks, pid=lambda: pid)
    pid = 2
    inherited.settle()
    tasks.append("second")
    pid = 3
    inherited.settle()
    assert "second" in inherited
