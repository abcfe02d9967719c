"""The controllers of built-in kinds and the scheduler. They are clients of the API server."""
