"""Findings and numbers as OpenTelemetry signals. Does not know any source."""
