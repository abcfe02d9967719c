"""Ports for the servers that tests start."""

import random
import socket
import sys
from contextlib import suppress
from pathlib import Path

_FIRST, _BLOCK = 10_100, 100
"""Above 10080, which browsers refuse."""
_blocks: list[socket.socket] = []
_ports: list[int] = []
_random = random.Random()


def free_port() -> int:
    """Return a free port, which no other process of tests on this machine gets.

    The system gives it to no client and to no server on port 0, so it is still free when a program binds it later.
    """
    while True:
        if not _ports:
            _ports.extend(_reserve_block())
        port = _ports.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _reserve_block() -> range:
    """Reserve ports below those that the system chooses, for as long as this process runs."""
    end = 32_768
    with suppress(OSError):
        chosen = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        end = max(int(chosen.split()[0]), _FIRST + 10 * _BLOCK)
    while True:
        first = _random.randrange(_FIRST, end - _BLOCK, _BLOCK)
        if sys.platform == "linux":
            # The kernel releases the name when the process exits.
            name = socket.socket(socket.AF_UNIX)
            try:
                name.bind(f"\0cortex-tests-{first}")
            except OSError:
                name.close()
                continue
            _blocks.append(name)
        return range(first, first + _BLOCK)
