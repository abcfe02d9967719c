"""The API server: discovery, validation, defaults, server-side apply, watches and tables over one in-memory store."""
