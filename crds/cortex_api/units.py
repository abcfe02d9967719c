"""Patterns of durations and Kubernetes quantities, and conversion to seconds, bytes and milli-CPU.

The patterns mean the same in Go (used by the API server) and in Python with re.fullmatch.
"""

import re
from decimal import Decimal

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
QUANTITY_PATTERN = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2}|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
"""The forms that Kubernetes accepts (apimachinery/pkg/api/resource), without a sign."""

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_FACTORS = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def seconds(duration: str) -> float:
    """Convert a duration such as "10ms" or "1m30s" to seconds. Raises ValueError if it is invalid."""
    if not re.fullmatch(DURATION_PATTERN, duration):
        raise ValueError(
            f'"{duration}" is not a duration; use a number and a unit (ms, s, m, h), for example "10s"'
        )
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", duration)
    return float(sum((Decimal(number) * _SECONDS[unit] for number, unit in parts), Decimal(0)))


def parse_bytes(quantity: str | int) -> int:
    """Convert a quantity such as "1Gi" to bytes. Raises ValueError if it is invalid."""
    return int(_quantity(quantity))


def milli_cpu(quantity: str | int) -> int:
    """Convert a quantity such as "200m" or 2 to milli-CPU. Raises ValueError if it is invalid."""
    return int(_quantity(quantity) * 1000)


def _quantity(quantity: str | int) -> Decimal:
    text = str(quantity)
    if (match := re.fullmatch(QUANTITY_PATTERN, text)) is None:
        example = '"200m" or "1Gi"'
        if text[-1:] in ("B", "b") and re.fullmatch(QUANTITY_PATTERN, text[:-1]):
            example = f'"{text[:-1]}", without "{text[-1]}"'
        raise ValueError(
            f'"{text}" is not a quantity; use a number with an optional unit, for example {example}'
        )
    number, suffix = match[1], match[3] or ""
    if suffix[1:] and suffix[0] in "eE" and suffix not in _FACTORS:
        return Decimal(number + suffix)
    return Decimal(number) * _FACTORS[suffix]
