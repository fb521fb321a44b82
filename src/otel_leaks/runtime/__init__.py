"""What CPython keeps private, one subject a file, with the versions that each serves."""
