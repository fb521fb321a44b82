"""
Django's settings, applications and databases, as its own runtests.py makes them.

    pytest -p field_django tests/asgi      in the source distribution of Django
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Install the applications of the tests that were asked for, before any is imported."""
    tests = Path.cwd() / "tests"
    sys.path.insert(0, str(tests))
    os.environ["DJANGO_SETTINGS_MODULE"] = "test_sqlite"
    os.environ.setdefault("TMPDIR", tempfile.gettempdir())
    import runtests  # type: ignore[import-not-found]

    files = [Path(each.partition("::")[0]).absolute() for each in config.args]
    labels = sorted({each.relative_to(tests).parts[0] for each in files})
    runtests.setup_run_tests(0, None, None, labels)


@pytest.fixture(scope="session", autouse=True)
def _databases() -> Iterator[None]:
    from django.test.runner import DiscoverRunner

    runner = DiscoverRunner(verbosity=0, interactive=False)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    yield
    runner.teardown_databases(databases)
    runner.teardown_test_environment()
