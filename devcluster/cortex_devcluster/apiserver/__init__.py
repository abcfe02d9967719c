"""The API server: HTTP in front of a store, with validation, server-side apply and watches."""
