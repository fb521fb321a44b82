"""Findings, as text for people and as values for machines."""
