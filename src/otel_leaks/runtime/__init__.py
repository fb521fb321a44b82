"""What CPython and servers keep private: one subject a file, with the versions it serves."""
