"""Access to private parts of CPython: one module a subject, with the versions that it serves."""
