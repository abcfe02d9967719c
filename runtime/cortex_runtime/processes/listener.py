"""Listening sockets."""

import os
import socket

from cortex_runtime.errors import StartError


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket that child processes can inherit. Raises StartError (PortInUse)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartError("PortInUse", f"can't listen on {host}:{port}: {error.strerror}") from error
    os.set_inheritable(listener.fileno(), True)
    return listener
