from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A loaded machine is no failure. In CI every run has the same examples; elsewhere what
# an example finds is printed with what repeats it.
settings.register_profile(
    "otel-leaks",
    deadline=None,
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("otel-leaks")
