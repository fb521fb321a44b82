"""Nothing opens on a service that is well; what leaks is found, and called by its name."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from e2e.receiving import eventually
from e2e.serving import free_ports
from otel_leaks.telemetry import names
from reliability.environment import ServersEnvironment
from reliability.serving import Run, Running
from reliability.telemetry import receiving
from services.results import Row
from services.seen import Opened, Seen
from services.servers import listens
from services.stacks import APPS, HEALTHY, LEAKS, Leak, Spans, Stack

SECONDS = float(os.environ.get("SERVICES_SECONDS") or 60)
"""How long the users of a healthy service stay."""
LEAKS_S = 90.0
"""How long those of a leaking one do, at most."""
GOES_ON_S = 5.0
"""For so long after it was found, it may not be said to have ended."""

COMING_UNSEEN_S = 18.0
"""In which users come who stay, where there are no spans; else it is two thirds of their time.
Without spans a connection can't be told from a leaked task, see docs/detection.md."""

OUTLIVED_S, WINDOW_S, INTERVAL_S = 1.0, 3.0, 0.25
SCALE = {"outlived": 60 / OUTLIVED_S, "growth": 600 / WINDOW_S}
"""For how many seconds a second stands."""

STARTS_S = 180.0


@dataclass(frozen=True, kw_only=True)
class ServiceRun(Run):
    """How a service is run: with all instrumentations, and times that are shorter."""

    stack: Stack
    spans: Spans
    servers: dict[str, str]

    def variables(self) -> dict[str, str]:
        found = super().variables()
        for name in ("THREAD_LIMIT", "TASK_LIMIT"):
            del found[f"OTEL_PYTHON_LEAKS_{name}"]
        found |= {
            "OTEL_SERVICE_NAME": self.stack.name,
            "SPANS": self.spans,
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_PYTHON_LEAKS_INTERVAL_S": str(INTERVAL_S),
            "OTEL_PYTHON_LEAKS_OUTLIVED_S": str(OUTLIVED_S),
            "OTEL_PYTHON_LEAKS_GROWTH_WINDOW_S": str(WINDOW_S),
            "OTEL_PYTHON_LEAKS_COOLDOWN_S": "30",
            "PYTHONPATH": os.pathsep.join([found["PYTHONPATH"], str(APPS)]),
            **self.servers,
            **self.stack.variables,
        }
        if isinstance(self.stack, Leak):
            found["OTEL_PYTHON_LEAKS_ORIGINS"] = "all"
        if self.spans == "a tenth":
            found["OTEL_TRACES_SAMPLER"] = "parentbased_traceidratio"
            found["OTEL_TRACES_SAMPLER_ARG"] = "0.1"
        if self.spans in {"none", "FastAPI's own"}:
            found["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = ",".join(self._that_make_spans())
        return found

    def _that_make_spans(self) -> list[str]:
        found = {
            point.name
            for each in distributions(path=[str(self.site)])
            for point in each.entry_points
            if point.group == "opentelemetry_instrumentor"
        }
        return sorted(found - {"asyncio", "threading"})

    @property
    def site(self) -> Path:
        (found,) = self.environment.bin.parent.glob("lib/python*/site-packages")
        return found

    def versions(self) -> str:
        found = {each.name.lower(): each.version for each in distributions(path=[str(self.site)])}
        return ", ".join(f"{each} {found[each]}" for each in self.stack.packages)

    @contextmanager
    def serving(self) -> Iterator[Running]:
        (port,) = free_ports(1)
        command = self.stack.command(self, port, self.stack.name)
        with self.running(command, port=port) as service:

            def is_ready() -> bool:
                said = service.stdout + service.stderr
                assert service.process.poll() is None, said
                return self.stack.ready in said if self.stack.ready else listens(port)

            eventually(is_ready, within_s=STARTS_S)
            yield service

    @contextmanager
    def users(self, port: int, seconds: float) -> Iterator[Running]:
        """Run the users, without any instrumentation."""
        address = self.stack.address.format(port)
        coming_s = COMING_UNSEEN_S if self.spans == "none" else seconds * 2 / 3
        coming_s = self.stack.coming_s or coming_s
        command = [self.environment.python, "traffic.py", self.stack.name, address]
        command += [str(seconds), str(coming_s)]
        folder = self.folder / "users"
        folder.mkdir()
        plain = Run(self.environment, self.telemetry, folder, "in code", watched=False, apps=APPS)
        with plain.running(command, variables=self.servers) as users:
            yield users


def of_each(stacks: tuple[Stack, ...]) -> list[object]:
    return [
        pytest.param(
            stack,
            spans,
            id=stack.name if spans == "all" else f"{stack.name}-{spans.split()[-1]}",
            marks=[pytest.mark.short] * (stack.is_short and spans == "all"),
        )
        for stack in stacks
        for spans in stack.spans
    ]


@pytest.fixture
def seen() -> Iterator[Seen]:
    with receiving(Seen()) as found:
        yield found


@pytest.fixture
def run(  # noqa: PLR0917 - pytest passes them by name
    programs: ServersEnvironment,
    servers: dict[str, str],
    seen: Seen,
    tmp_path: Path,
    stack: Stack,
    spans: Spans,
) -> ServiceRun:
    folder = tmp_path / "service"
    folder.mkdir()
    return ServiceRun(
        programs, seen, folder, "zero-code", watched=True, apps=APPS,
        stack=stack, spans=spans, servers=servers,
    )  # fmt: skip


@pytest.mark.parametrize(("stack", "spans"), of_each(HEALTHY))
def test_nothing_opens_on_a_healthy_service(
    run: ServiceRun, stack: Stack, spans: Spans, seen: Seen, row: Row
) -> None:
    row.section, row.order = "Healthy", place(HEALTHY, stack, spans)
    row.cells = {"service": stack.title, "versions": run.versions(), "spans": spans}
    with run.serving() as service:
        with run.users(service.port, SECONDS) as users:
            users.process.wait(SECONDS + 180)
            assert users.process.returncode == 0, users.stderr
        done = json.loads(users.stdout)
        row.cells["traffic"] = traffic(done)
        service.stop()
    tasks, threads = peak(seen, names.TASK_COUNT), peak(seen, names.THREAD_COUNT)
    row.cells["alive at most"] = f"{tasks} tasks, {threads} threads"
    row.cells["opened"] = wrong(seen.detected)
    print(service.stderr)
    assert [each.message for each in seen.detected] == []
    assert done["failures"] == {}
    assert seen.broken == set()
    # Else nothing would have opened whatever happened.
    assert (tasks >= stack.tasks, threads >= stack.threads) == (True, True), (tasks, threads)
    assert seen.censuses > SECONDS / WINDOW_S * 3 / 2, seen.censuses
    assert (seen.spans_received > 0) == (spans != "none")


@pytest.mark.parametrize(("stack", "spans"), of_each(LEAKS))
def test_a_leak_is_found_and_named(
    run: ServiceRun, stack: Leak, spans: Spans, seen: Seen, row: Row
) -> None:
    row.section, row.order = "Leaking", place(LEAKS, stack, spans)
    row.cells = {"service": stack.title, "versions": run.versions(), "spans": spans}
    with run.serving() as service:
        started = time.time()
        with run.users(service.port, LEAKS_S) as users:
            found = eventually(
                lambda: first(seen, stack),
                lambda found: found is not None or users.process.poll() is not None,
                within_s=LEAKS_S + 60,
            )
            if found is not None:
                time.sleep(GOES_ON_S)
            left_at = time.time()
            if users.process.poll() is None:
                users.stop()
            row.cells["traffic"] = traffic(json.loads(users.stdout))
        service.stop()
    print(service.stderr, *seen.detected, sep="\n")
    besides = [each for each in seen.detected if not is_of(each, stack)]
    row.cells["besides"] = wrong(besides)
    row.cells["opened"], row.cells["after"], row.cells["named"] = "**nothing**", "", ""
    assert found is not None, (besides, service.stderr)
    row.cells["opened"] = f"`{found.evidence}`: {plain(found.message)}"
    after_s = found.at - started
    stands_for_min = after_s * SCALE.get(found.evidence, 1) / 60
    row.cells["after"] = f"{after_s:.0f} s, for {stands_for_min:.0f} min"
    expected = {"function", "created at"} | ({"route"} if spans != "none" else set())
    named = right(found, stack)
    row.cells["named"] = ", ".join(sorted(named)) + "".join(
        f"; **not the {each}**" for each in sorted(expected - named)
    )
    assert besides == []
    assert seen.broken == set()
    too_early = [each for each in seen.resolved if each.at < left_at or not stack.ends_with_users]
    assert [each.message for each in too_early] == []
    assert expected - named == set(), found


def place(of: Sequence[Stack], stack: Stack, spans: Spans) -> int:
    return 10 * of.index(stack) + stack.spans.index(spans)


def traffic(done: dict[str, Any]) -> str:
    """Return what the users did, as it stands in the page."""
    counts = sorted(done["done"].items())
    return f"{', '.join(f'{n} {what}' for what, n in counts)} in {done['seconds']:.0f} s"


def wrong(opened: list[Opened]) -> str:
    return "; ".join(f"**{plain(each.message)}**" for each in opened) or "nothing"


def plain(message: str) -> str:
    """Return a message with paths that are the same on every machine."""
    return re.sub(r"/[^ ()]*/(?:site-packages|lib/python3\.\d+|tests/services/apps)/", "", message)


def peak(seen: Seen, gauge: names.Metric) -> int:
    return int(seen.peaks.get(gauge.name, 0))


def first(seen: Seen, stack: Leak) -> Opened | None:
    return next((each for each in list(seen.detected) if is_of(each, stack)), None)


def is_of(opened: Opened, stack: Leak) -> bool:
    """Whether a finding is about the leak."""
    return opened.attributes[names.KIND] == stack.kind and any(
        f"{stack.name}.py" in str(value) or value in stack.functions
        for sample in opened.samples
        for key, value in sample.items()
        if key in {names.FUNCTION, names.ORIGIN_FILE, names.OWN_FILE, names.STACKTRACE}
    )


def right(opened: Opened, stack: Leak) -> set[str]:
    """Return what of the largest site is called what it is."""
    sample = opened.samples[0] if opened.samples else {}
    created = {
        (str(sample.get(file, "")).rpartition("/")[2], sample.get(line))
        for file, line in (
            (names.ORIGIN_FILE, names.ORIGIN_LINE),
            (names.OWN_FILE, names.OWN_LINE),
        )
    }
    routes = [str(sample.get(each, "")) for each in (names.ROUTE, names.OPERATION)]
    return {
        what
        for what, is_right in {
            "function": sample.get(names.FUNCTION) in stack.functions,
            "created at": (f"{stack.name}.py", stack.line) in created,
            "route": any(stack.route in each for each in routes),
        }.items()
        if is_right
    }
