"""When to look, and what to make of it: what opens, is reminded of, and resolves."""
