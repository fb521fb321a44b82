"""Where a Django site is instrumented in code: once, in the process that serves."""

from __future__ import annotations

import watched  # type: ignore[import-not-found]  # It lies beside, where the program runs.
from django.core.wsgi import get_wsgi_application

watched.instrument_in_code()

application = get_wsgi_application()
watched.note_our_log()
