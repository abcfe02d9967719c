"""The controllers of built-in kinds and the scheduler, as clients of the API server."""
