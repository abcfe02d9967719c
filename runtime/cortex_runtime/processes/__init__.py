"""Processes of a replica: their arguments, how they end with their supervisor, and whether the kernel killed them for memory."""
