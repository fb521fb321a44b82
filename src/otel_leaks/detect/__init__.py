"""Policies: censuses in, findings out. One pure function a file; no clock, no I/O."""
