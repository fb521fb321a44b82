"""Reads from a function's bytecode whether it can end, and which lock it waits for."""
