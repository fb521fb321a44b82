"""What the files of this suite need; a file whose packages are missing is left out."""

import importlib.util
import json
import os
import threading

import pytest

NEEDS = {
    "test_aiohttp.py": "pytest_aiohttp",
    "test_anyio.py": "anyio",
    "test_asyncio.py": "pytest_asyncio",
    "test_django.py": "pytest_django",
    "test_freezer.py": "pytest_freezer",
    "test_looptime.py": "looptime",
    "test_mock.py": "pytest_mock",
    "test_subtests.py": "pytest_subtests",
    "test_time_machine.py": "time_machine",
    "test_tornado.py": "tornado",
    "test_trio.py": "pytest_trio",
}


def _is_here(package):
    if package == "pytest_subtests" and int(pytest.__version__.partition(".")[0]) >= 9:
        return True
    return importlib.util.find_spec(package) is not None


collect_ignore = [name for name, package in NEEDS.items() if not _is_here(package)]

OUTCOMES = []


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        OUTCOMES.append([report.nodeid, report.when, report.outcome])


def pytest_sessionfinish(session, exitstatus):
    if not hasattr(session.config, "workerinput"):
        with open(os.environ["OUTCOMES"], "w") as file:
            json.dump(OUTCOMES, file)


@pytest.fixture
def leave_a_thread():
    def leave():
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    return leave
