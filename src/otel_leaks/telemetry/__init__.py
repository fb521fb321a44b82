"""Findings and numbers as OpenTelemetry's signals. Knows no source of them."""
