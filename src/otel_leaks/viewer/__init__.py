"""
At the desk: a local OTLP receiver, and what it received as a person reads it.

Knows of the rest of the package only the names of its telemetry: what it shows came
over OTLP, as it would reach any backend.
"""
