"""Loopback addresses of pods (127.42.x.y) and services (127.43.x.y).

Each dev cluster reserves a block of 4,000 addresses of each network that no other dev cluster on this machine uses.
"""

from __future__ import annotations

import random
import socket
from collections import deque

LOCK_PORT = 42424
BLOCKS = 16


class AddressesExhausted(Exception):
    """All blocks, or all addresses of a block, are in use."""


class AddressBlock:
    """Addresses allocated to owners. Released addresses are reused last."""

    def __init__(self, network: int, block: int) -> None:
        first = block * 256 // BLOCKS
        hosts = [(x, y) for x in range(first, first + 256 // BLOCKS) for y in range(1, 251)]
        self.size = len(hosts)
        self._free = deque(f"127.{network}.{x}.{y}" for x, y in hosts)
        self._taken: dict[str, str] = {}

    def allocate(self, owner: str) -> str:
        """Return the address of an owner; allocate one on the first call. Raises AddressesExhausted."""
        if owner not in self._taken:
            if not self._free:
                raise AddressesExhausted(f"all {self.size} addresses of the dev cluster are in use")
            self._taken[owner] = self._free.popleft()
        return self._taken[owner]

    def release(self, owner: str) -> None:
        """Make the address of an owner available again."""
        if owner in self._taken:
            self._free.append(self._taken.pop(owner))


def reserve_block() -> tuple[int, socket.socket]:
    """Return the number of an unused block, and the bound socket that reserves it. Raises AddressesExhausted."""
    for block in random.sample(range(BLOCKS), BLOCKS):
        lock = socket.socket()
        try:
            lock.bind((f"127.42.{(block + 1) * 256 // BLOCKS - 1}.254", LOCK_PORT))
            return block, lock
        except OSError:
            lock.close()
    raise AddressesExhausted(f"{BLOCKS} dev clusters are running on this machine; stop one of them")
