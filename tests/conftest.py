from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# They assert for the tests that share them, and say as much when that fails.
pytest.register_assert_rewrite("reliability.lives", "reliability.serving")


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """Stop measuring coverage meanwhile: coverage.py keeps the code of all that runs."""
    coverage = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    if current is None:
        yield
        return
    current.stop()
    try:
        yield
    finally:
        current.start()


# A loaded machine is no failure. In CI every run has the same examples; elsewhere what
# an example finds is printed with what repeats it.
settings.register_profile(
    "otel-leaks",
    deadline=None,
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
# `make fuzz`: the same properties, with far more examples, new ones in each run.
settings.register_profile(
    "long", settings.get_profile("otel-leaks"), max_examples=5000, derandomize=False
)
settings.load_profile("otel-leaks")
