"""
A local OTLP receiver, and pages that show what it received.

Of the rest of the package it knows only the names of its telemetry: everything that it shows
arrived over OTLP, as it would at any backend.
"""
