"""Processes of a replica: how they are started, how they exit with their supervisor, and whether the kernel killed one."""
