"""The `cortex` command and the dev cluster."""
