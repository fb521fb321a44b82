"""Where an object was created, and which scope it belongs to."""
