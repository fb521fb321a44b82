"""Policies: censuses in, findings out. One pure function per file; no clock, no I/O."""
