"""Logs as JSON lines: records, prints, tracebacks, and the way to stdout."""
