"""Loopback addresses for pods (127.42.x.y) and services (127.43.x.y): a block of 4,000 each that no other dev cluster has."""

from __future__ import annotations

import random
import socket
from collections import deque

LOCK_PORT = 42424
BLOCKS = 16


class AddressesExhausted(Exception):
    """No block or no address is left."""


class AddressBlock:
    """Addresses handed out by owner; those given back come again last."""

    def __init__(self, network: int, block: int) -> None:
        first = block * 256 // BLOCKS
        hosts = [(x, y) for x in range(first, first + 256 // BLOCKS) for y in range(1, 251)]
        self.size = len(hosts)
        self._free = deque(f"127.{network}.{x}.{y}" for x, y in hosts)
        self._taken: dict[str, str] = {}

    def allocate(self, owner: str) -> str:
        if owner not in self._taken:
            if not self._free:
                raise AddressesExhausted(f"all {self.size} addresses of the dev cluster are taken")
            self._taken[owner] = self._free.popleft()
        return self._taken[owner]

    def release(self, owner: str) -> None:
        if owner in self._taken:
            self._free.append(self._taken.pop(owner))


def reserve_block() -> tuple[int, socket.socket]:
    """A block that is free on this machine, and the bound socket that keeps it so. Raises Exhausted."""
    for block in random.sample(range(BLOCKS), BLOCKS):
        lock = socket.socket()
        try:
            lock.bind((f"127.42.{(block + 1) * 256 // BLOCKS - 1}.254", LOCK_PORT))
            return block, lock
        except OSError:
            lock.close()
    raise AddressesExhausted(f"{BLOCKS} dev clusters run on this machine already: stop one")
