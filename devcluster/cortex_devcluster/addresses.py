"""Loopback addresses of pods (127.42.x.y, 127.44.x.y, ...) and services (127.43.x.y, 127.45.x.y, ...).

Each dev cluster reserves a block of 4,000 addresses of each that no other dev cluster on this machine uses.
"""

from __future__ import annotations

import random
import socket
from collections import deque

LOCK_PORT = 42424
PODS, SERVICES = 42, 43
"""The first networks."""
_PAIRS, _BLOCKS = 8, 16
"""Pairs of networks, and blocks of each pair. Parallel tests use many dev clusters."""


class AddressesExhausted(Exception):
    """All blocks, or all addresses of a block, are in use."""


class AddressBlock:
    """Addresses allocated to owners. Released addresses are reused last.

    network: PODS or SERVICES. block: from `reserve_block`.
    """

    def __init__(self, network: int, block: int) -> None:
        network, first = _start(network, block)
        hosts = [(x, y) for x in range(first, first + 256 // _BLOCKS) for y in range(1, 251)]
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
    count = _PAIRS * _BLOCKS
    for block in random.sample(range(count), count):
        network, first = _start(PODS, block)
        lock = socket.socket()
        try:
            # No pod has this address.
            lock.bind((f"127.{network}.{first + 256 // _BLOCKS - 1}.254", LOCK_PORT))
            return block, lock
        except OSError:
            lock.close()
    raise AddressesExhausted(f"{count} dev clusters are running on this machine; stop one of them")


def _start(network: int, block: int) -> tuple[int, int]:
    """Return the second and the third number of the first address of a block."""
    pair, number = divmod(block, _BLOCKS)
    return network + 2 * pair, number * 256 // _BLOCKS
