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


def reserve(host: str, port: int) -> tuple[socket.socket, str]:
    """Bind a port that child processes listen on, each with a socket of its own (SO_REUSEPORT).

    Returns the socket that reserves the port, which receives no connections, and the address with host and port.
    Raises StartError (PortInUse).
    """
    # Without SO_REUSEPORT, so that a program that already listens on the port is noticed.
    with listen(host, port) as probe:
        family, number = probe.family, probe.getsockname()[1]
    reserved = socket.socket(family, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind((host, number))
    return reserved, f"[{host}]:{number}" if family == socket.AF_INET6 else f"{host}:{number}"


def listen_reserved(address: str) -> socket.socket:
    """Return a socket that listens on a reserved port along with those of other processes. address: of `reserve`.

    Raises StartError (PortInUse).
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, int(port)))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartError("PortInUse", f"can't listen on {address}: {error.strerror}") from error
    return listener
