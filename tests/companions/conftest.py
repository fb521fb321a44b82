"""The suite is run by its tests, in environments that have what it needs."""

collect_ignore = ["suite"]
