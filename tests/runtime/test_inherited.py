from __future__ import annotations

from otel_leaks.runtime.inherited import Inherited


def test_before_a_fork_nothing_is_inherited() -> None:
    inherited = Inherited(lambda: ["task"])
    inherited.settle()
    assert not inherited
    assert "task" not in inherited


def test_a_fork_reads_nothing_and_what_is_there_when_it_settles_is_the_parents() -> None:
    reads = []
    tasks = ["parent's"]

    def read() -> list[str]:
        reads.append(True)
        return list(tasks)

    inherited = Inherited(read)
    inherited.forked()
    assert reads == []
    inherited.settle()
    tasks.append("child's")
    inherited.settle()
    assert (len(reads), "parent's" in inherited, "child's" in inherited) == (1, True, False)


def test_a_second_fork_takes_what_is_there_then_and_forgetting_takes_nothing() -> None:
    tasks = ["first"]
    inherited = Inherited(lambda: tasks)
    inherited.forked()
    inherited.settle()
    tasks.append("second")
    inherited.forked()
    assert not inherited
    inherited.settle()
    assert "second" in inherited
    inherited.forget()
    inherited.settle()
    assert not inherited
