"""What the panels of Grafana's dashboard ask, answered by Prometheus' own engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.monitoring import run
from support.grafana import asked, dashboard

pytestmark = pytest.mark.e2e

BOARD = dashboard()

SHOP = {"job": "ns/shop", "instance": "a"}
CART = {"job": "cart", "instance": "b"}
VERSIONS = {
    "target_info": [({**SHOP, "service_version": "7"}, "1x60"), (CART, "1x60")],
}
Series = Mapping[str, list[tuple[dict[str, str], str]]]
Samples = list[tuple[dict[str, str], float]]


@pytest.fixture
def answers(tmp_path: Path) -> Any:
    """Return a check that Prometheus answers questions, each at a time, as expected."""

    def check(series: Series, *questions: tuple[str, str, Samples], interval: str = "1m") -> None:
        test = {
            "interval": interval,
            "input_series": [
                {"series": f"{{{_labels({'__name__': name, **labels})}}}", "values": values}
                for name, several in series.items()
                for labels, values in several
            ],
            "promql_expr_test": [
                {
                    "expr": question,
                    "eval_time": at,
                    "exp_samples": [
                        {"labels": f"{{{_labels(labels)}}}", "value": value}
                        for labels, value in samples
                    ],
                }
                for question, at, samples in questions
            ],
        }
        file = tmp_path / "questions.yaml"
        # JSON is YAML.
        file.write_text(json.dumps({"tests": [test]}), encoding="utf-8")
        status, said = run("promtool", "test", "rules", str(file))
        assert status == 0, said

    return check


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in labels.items())


def test_what_leaks_is_listed_by_service_version_and_process(answers: Any) -> None:
    leak = {"python_leak_kind": "thread", "python_leak_evidence": "growth"}
    answers(
        {**VERSIONS, "python_leak_open": [({**SHOP, **leak}, "1x60"), ({**CART, **leak}, "0x60")]},
        (
            asked(BOARD, 7),
            "1h",
            [({**SHOP, **leak, "service": "shop", "service_version": "7"}, 1)],
        ),
        (asked(BOARD, 2), "1h", [({}, 1)]),
        (asked(BOARD, 6), "1h", [({}, 2)]),
        (asked(BOARD, 6, job="(ns/shop|cart)", instance="(a|c)"), "1h", [({}, 1)]),
        (asked(BOARD, 6, version="(7|8)"), "1h", [({}, 1)]),
        (asked(BOARD, 2, job="cart"), "1h", [({}, 0)]),
    )


def test_counters_include_the_first_increments_and_those_of_a_process_that_ended(
    answers: Any,
) -> None:
    function = {"code_function_name": "notify"}
    leak = {"python_leak_kind": "thread", "python_leak_evidence": "growth"}
    lost = "python_asyncio_task_destroyed_total"
    opened = "python_leak_detections_total"
    answers(
        {
            "target_info": [(SHOP, "1x20 stale"), (CART, "1x90")],
            # The series begins with the first three, and rises by two, ten minutes later.
            lost: [({**CART, **function}, "_x40 3x9 5x40")],
            opened: [({**SHOP, **leak}, "0x18 2 2 stale")],
        },
        (asked(BOARD, 5), "80m", [({}, 5)]),
        (asked(BOARD, 5, within="30m"), "1h", [({}, 5)]),
        (asked(BOARD, 5, within="20m"), "80m", [({}, 0)]),
        (asked(BOARD, 3), "1h", [({}, 2)]),
        (asked(BOARD, 3, instance="b"), "1h", []),
        # Each of them once, in one step.
        *(
            (asked(BOARD, 51), f"{at}m", [({"job": "cart", **function}, gained)])
            for at, gained in ((40, 3), (41, 0), (49, 0), (50, 2), (51, 0))
        ),
        (
            asked(BOARD, 8),
            "19m",
            [({"job": "ns/shop", "service": "shop", **leak}, 2)],
        ),
        (
            asked(BOARD, 8),
            "20m",
            [({"job": "ns/shop", "service": "shop", **leak}, 0)],
        ),
    )


def test_the_ranking_is_of_now_against_last_week_whatever_the_version_was(answers: Any) -> None:
    week = 7 * 24 * 12
    drain = {"job": "shop", "code_function_name": "drain"}
    serve = {"job": "shop", "code_function_name": "serve"}
    notify = {"job": "cart", "code_function_name": "notify"}
    new, old = {"service_version": "7"}, {"service_version": "6"}
    threads, tasks = {"kind": "thread"}, {"kind": "asyncio_task"}
    rms = "function:python_thread_count:rms"
    questions = {ref: asked(BOARD, 31, ref) for ref in "ABCD"}
    ranked = [
        {**drain, **new, **threads, "service": "shop"},
        {**serve, **new, **threads, "service": "shop"},
        {**notify, **new, **tasks, "service": "cart"},
    ]
    answers(
        {
            rms: [
                ({**drain, **old}, f"10x5 stale _x{week - 7}"),
                ({**drain, **new}, f"_x{week - 10} 80x10"),
                ({**serve, **new}, f"_x{week - 10} 4x10"),
            ],
            "function:python_asyncio_task_count:rms": [({**notify, **new}, f"500x{week}")],
            "function:python_thread_count:sum": [({**drain, **new}, f"_x{week - 10} 160x10")],
            "function:python_thread_count:share": [({**drain, **new}, f"_x{week - 10} 0.5x10")],
        },
        *(
            (question, "168h", list(zip(ranked[: len(values)], values, strict=True)))
            for question, values in (
                (questions["A"], (80, 4, 500)),
                # Last week it was version 6; serve is new.
                (questions["B"], (10, 0, 500)),
                (asked(BOARD, 31, "B", version="7"), (10, 0, 500)),
                (questions["C"], (160,)),
                (questions["D"], (0.5,)),
            )
        ),
        interval="5m",
    )


def test_a_chart_has_the_largest_functions_all_of_them_and_their_limit(answers: Any) -> None:
    functions = [{"code_function_name": f"work_{index:02}"} for index in range(20)]
    answers(
        {
            **VERSIONS,
            "python_thread_count": [
                ({**SHOP, **function}, f"{20 + index}x60")
                for index, function in enumerate(functions)
            ],
            "python_thread_limit": [(SHOP, "200x60"), (CART, "300x60")],
        },
        (
            asked(BOARD, 11),
            "1h",
            [
                ({"job": "ns/shop", "service": "shop", **function}, 20 + index)
                for index, function in enumerate(functions)
                if index >= 5
            ],
        ),
        (asked(BOARD, 11, "B"), "1h", [({}, sum(range(20, 40)))]),
        (asked(BOARD, 11, "C"), "1h", [({}, 500)]),
        (asked(BOARD, 13), "1h", [({**SHOP, "service": "shop"}, sum(range(20, 40)) / 200)]),
        (asked(BOARD, 4), "1h", [({}, sum(range(20, 40)) / 200)]),
    )
