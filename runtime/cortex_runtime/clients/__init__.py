"""The clients that a handler's constructor may ask for."""
