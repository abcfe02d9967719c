"""The commands of `cortex`, one module each. Each is imported only when it is invoked."""
