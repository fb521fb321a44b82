from __future__ import annotations

from hypothesis import settings

# A loaded machine is no failure; what an example finds is printed with what repeats it.
settings.register_profile("otel-leaks", deadline=None, print_blob=True)
settings.load_profile("otel-leaks")
