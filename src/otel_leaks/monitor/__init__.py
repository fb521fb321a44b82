"""When to look, and what follows: which findings open, are repeated, and resolve."""
