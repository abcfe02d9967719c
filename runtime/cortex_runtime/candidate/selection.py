"""Which version answers a request. Every replica and worker selects the same version for the same value of the key header."""

import random
from collections.abc import Mapping
from enum import Enum
from hashlib import blake2b

from cortex_api.contract import CANDIDATE, STABLE, VERSION_HEADER
from cortex_runtime.candidate.split import Split

VERSION = VERSION_HEADER.encode()
_STABLE, _CANDIDATE = STABLE.encode(), CANDIDATE.encode()
_STEP, _MIRROR_STEP = 0.6180339887498949, 0.4142135623730951
"""Fractions of irrational numbers, the golden ratio and the square root of 2: their multiples are spread evenly over [0, 1)
(Weyl's theorem), also those of every n-th request. So a share is exact after fewer requests than with random numbers."""


class Selected(Enum):
    """STABLE; WEIGHTED: the candidate, by weight or key; EXPLICIT: the candidate, because the request names it."""

    STABLE = 0
    WEIGHTED = 1
    EXPLICIT = 2


class Selector:
    """Selects versions as a split says. api: the API's name, see `position_of`."""

    def __init__(self, split: Split, api: str) -> None:
        self._weight, self._mirror = split.weight / 100, split.mirror / 100
        self._key = split.key
        self._salt = api.encode()
        self._position, self._mirror_position = random.random(), random.random()

    def select(self, headers: Mapping[bytes, bytes]) -> Selected:
        """Return the version for a request with these headers, whose names are in lower case."""
        named = headers.get(VERSION)
        if named is not None:
            if named == _CANDIDATE:
                return Selected.EXPLICIT
            if named == _STABLE:
                return Selected.STABLE
        weight = self._weight
        if not weight:
            return Selected.STABLE
        if self._key is not None and (value := headers.get(self._key)) is not None:
            selected = position_of(value, self._salt) < weight
        else:
            self._position = position = (self._position + _STEP) % 1.0
            selected = position < weight
        return Selected.WEIGHTED if selected else Selected.STABLE

    def select_mirrored(self) -> bool:
        """Return whether the candidate answers a request of the stable version as well."""
        if not self._mirror:
            return False
        self._mirror_position = position = (self._mirror_position + _MIRROR_STEP) % 1.0
        return position < self._mirror


def position_of(value: bytes, salt: bytes) -> float:
    """Return a number in [0, 1) for the value of a key header.

    It does not depend on the weight: a value below a weight is below every larger one. salt: without it, the same users would
    meet the candidates of all APIs.
    """
    return int.from_bytes(blake2b(value, digest_size=8, key=salt[:64]).digest()) / 2**64
