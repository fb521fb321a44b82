"""A small web shop with a leak, its customers, and the terminal in which it is caught."""
