"""What a function's bytecode says of it: whether it can end, which lock it waits for."""
