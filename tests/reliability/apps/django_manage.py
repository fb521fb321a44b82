from __future__ import annotations

import os
import sys

import watched  # type: ignore[import-not-found]  # It lies beside, where the program runs.
from django.core.management import execute_from_command_line

watched.note_our_log()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_site")
execute_from_command_line(sys.argv)
