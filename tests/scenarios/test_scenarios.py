"""
Every kind, leaking and clean: no miss, no false alarm, and each message says who began it.

Each program runs in a process of its own, at each door of ``verify_none``; and as a test
of its own under ``pytest --leaks``, one process for the programs of a kind.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from otel_leaks.model import KINDS
from scenarios import clean, leaking
from scenarios.scenario import Scenario, Scenarios

pytestmark = pytest.mark.scenarios

TESTS = Path(__file__).parents[1]

LOOPS = ("asyncio", "uvloop") if importlib.util.find_spec("uvloop") else ("asyncio",)
# A transport that was left open warns when its loop is closed; there uvloop 0.23 hangs when
# the warning is an error.
WARNINGS = ("-W", "error", "-W", "ignore::ResourceWarning")
MODULES: dict[str, Scenarios] = {"leaking": leaking.SCENARIOS, "clean": clean.SCENARIOS}


def environment(loop: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS), "SCENARIO_LOOP": loop}


def programs() -> list[object]:
    return [
        pytest.param(module, each, loop, id=f"{each.kind}-{each.name}-{loop}")
        for module, scenarios in MODULES.items()
        for each in scenarios
        for loop in (LOOPS if each.on_loop else LOOPS[:1])
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", MODULES)
def test_there_are_at_least_two_of_each_kind(module: str, kind: str) -> None:
    assert len([each for each in MODULES[module] if each.kind == kind]) >= 2


@pytest.mark.parametrize(("module", "each", "loop"), programs())
def test_verify_none_reports_what_was_left_and_what_created_it(
    module: str, each: Scenario, loop: str
) -> None:
    done = subprocess.run(
        [sys.executable, *WARNINGS, "-m", "scenarios.program", module, each.name],
        env=environment(loop),
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    told = json.loads(done.stdout)
    names = {began.split(".")[1] for began in each.began}
    files = [f"{name}.py" for name in names]
    assert [(door["found"], door["files"]) for door in told] == [(each.began, files)] * 2
    for began in each.began:
        function = began.partition(" ")[2]
        assert [f"{files[0]}:" in door["text"] for door in told] == [True] * 2
        assert [f" in {function}\n" in door["text"] for door in told] == [True] * 2


SUITE = """
    import pytest
    from scenarios import {module}

    BY_NAME = {{each.name: each for each in {module}.SCENARIOS}}

    @pytest.fixture(scope="session")
    def anyio_backend():
        return ("asyncio", {{"use_uvloop": {is_uvloop}}})

    @pytest.fixture(scope="session", autouse={is_uvloop})
    async def runner(anyio_backend):
        # Holds anyio's loop until the session ends. Else its end, which waits for the jobs
        # of its executor, is part of a test's call.
        yield
"""
TEST = """
    # Of the module: a test with a fixture of its own is judged after that.
    @pytest.fixture(scope="module")
    def given_of_{name}():
        given = BY_NAME["{name}"].given
        if given is None:
            yield ()
        else:
            with given() as value:
                yield (value,)

    {marker}
    {prefix}def test_{name}(given_of_{name}):
        {wait}BY_NAME["{name}"].body(*given_of_{name})
"""
INI = """[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
leaks_coroutines = true
"""
CONFTEST = """
    import pytest

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown():
        from scenarios.scenario import release
        release()  # Or the runner's teardown waits for the jobs of its executor.

    def pytest_unconfigure():
        from scenarios.scenario import clear_up
        clear_up()
"""


def suite_of(module: str, scenarios: list[Scenario], loop: str) -> str:
    parts = [SUITE.format(module=module, is_uvloop=loop == "uvloop")]
    # pytest-asyncio runs asyncio's own loop, anyio uvloop: both runners have their turn.
    runner = "@pytest.mark.anyio" if loop == "uvloop" else "@pytest.mark.asyncio"
    parts += [
        TEST.format(
            name=each.name,
            marker=runner if each.is_async else "# sync",
            prefix="async " if each.is_async else "",
            wait="await " if each.is_async else "",
        )
        for each in scenarios
    ]
    return "".join(map(textwrap.dedent, parts))


def suites() -> list[object]:
    return [
        pytest.param(module, kind, loop, id=f"{kind}-{module}-{loop}")
        for module, scenarios in MODULES.items()
        for kind in KINDS
        for loop in LOOPS
        if loop == "asyncio" or any(each.on_loop for each in scenarios if each.kind == kind)
    ]


@pytest.mark.parametrize(("module", "kind", "loop"), suites())
def test_pytest_charges_each_test_with_what_it_left(
    module: str, kind: str, loop: str, tmp_path: Path
) -> None:
    scenarios = [
        each for each in MODULES[module] if each.kind == kind and (each.on_loop or loop == LOOPS[0])
    ]
    (tmp_path / "conftest.py").write_text(textwrap.dedent(CONFTEST), encoding="utf-8")
    (tmp_path / "test_it.py").write_text(suite_of(module, scenarios, loop), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(INI, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--leaks", "--leaks-json=leaks.json", "-q"),
            *("-p", "no:cacheprovider", *WARNINGS, "-rA", "test_it.py"),
        ],
        cwd=tmp_path,
        env=environment(loop),
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told: dict[str, dict[str, int]] = {}
    for report in json.loads((tmp_path / "leaks.json").read_text(encoding="utf-8"))["leaks"]:
        found = told.setdefault(report["in"], {})
        for site in report["sites"]:
            key = f"{site['kind']} {(site['origin'] or {'function': '?'})['function']}"
            found[key] = found.get(key, 0) + site["count"]
    expected = {f"test_it.py::test_{each.name}": each.began for each in scenarios if each.began}
    assert (told, done.returncode) == (expected, int(bool(expected))), done.stdout
    passed = {line.partition(" ")[2] for line in done.stdout.splitlines() if "PASSED" in line}
    failed = {f"test_it.py::test_{each.name}" for each in scenarios} - passed
    assert failed == set(expected)
    for began in {function for each in expected.values() for function in each}:
        assert f" in {began.partition(' ')[2]}\n" in done.stdout
