"""Logging as JSON lines on stdout: records, prints, tracebacks, requests."""
