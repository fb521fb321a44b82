"""What the panels ask Prometheus: expressions that the dashboard's variables narrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

CHOSEN: Final = 'job=~"$job", instance=~"$instance"'
# A service without a version has a target_info without that label, which ".*" matches.
OF_VERSION: Final = 'and on (job, instance) target_info{job=~"$job", service_version=~"$version"}'

WITHIN_STEP: Final = ("$__rate_interval", "$__interval")
WITHIN_RANGE: Final = ("$__range", "$__range")


def chosen(metric: str) -> str:
    """Return the series of *metric* that the variables choose."""
    return f"{metric}{{{CHOSEN}}} {OF_VERSION}"


def of_version(window: str) -> str:
    """
    Return what leaves those of the chosen versions.

    Processes that ended within *window* are among them: a leak may have ended them.
    """
    version = f'target_info{{job=~"$job", service_version=~"$version"}}[{window}]'
    return f"and on (job, instance) last_over_time({version})"


def rate(metric: str) -> str:
    window = "$__rate_interval"
    return f"rate({metric}{{{CHOSEN}}}[{window}]) {of_version(window)}"


def gained(metric: str, window: str, step: str) -> str:
    """
    Return by how much each chosen counter has risen within *step*, exactly.

    ``increase`` guesses beyond the samples, and takes what a series begins with for nothing:
    that of a function begins with the first tasks that it loses. A counter here never falls,
    as each process has its own.

    Args:
        metric: A counter.
        window: How long a process that ended is still looked at, at least *step*.
        step: Adjacent ones count each thing once.
    """
    latest = f"last_over_time({metric}{{{CHOSEN}}}[{window}])"
    before = f"{metric}{{{CHOSEN}}} offset {step} or 0 * {latest}"
    return f"({latest} - ({before})) {of_version(window)}"


def total(expression: str, *by: str) -> str:
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def largest(expression: str, by: Sequence[str], of: str = "", count: int = 15) -> str:
    """
    Return the series of *expression* that are the largest of the whole range.

    ``topk`` alone chooses anew at each step, and a chart of it has dozens of torn lines.
    """
    most = f"max_over_time(({of or expression})[$__range:$__interval] @ end())"
    return f"{expression} and on ({', '.join(by)}) topk({count}, {most})"


def with_service(expression: str) -> str:
    """Add the label ``service``: ``job`` without the namespace, as tracing backends have it."""
    return f'label_replace({expression}, "service", "$1", "job", "(?:.*/)?(.*)")'


def both_kinds(record: str, offset: str = "") -> str:
    """
    Return a ranking of rules.yaml for threads and tasks, told apart by the label ``kind``.

    With an *offset* it is that of all versions: what runs now did not yet run then.
    """
    series = 'job=~"$job"' if offset else 'job=~"$job", service_version=~"$version"'
    # The rules are evaluated every five minutes, which is as long as Prometheus looks back.
    at = f"[15m]{offset and f' offset {offset}'}"
    kinds = {"thread": "python_thread_count", "asyncio_task": "python_asyncio_task_count"}
    parts = [
        f"label_replace(last_over_time(function:{metric}:{record}{{{series}}}{at}),"
        f' "kind", "{kind}", "", "")'
        for kind, metric in kinds.items()
    ]
    return f"max by (kind, job, service_version, code_function_name) ({' or '.join(parts)})"
