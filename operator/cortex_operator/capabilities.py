"""Features of the API server that not every supported version has, derived from its version at start."""

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Capabilities:
    """hpa_tolerance: `behavior.scaleUp.tolerance` of an HPA, enabled by default since 1.35 (KEP-4951)."""

    hpa_tolerance: bool = False

    @classmethod
    def of(cls, version: dict[str, Any]) -> "Capabilities":
        """Derive the capabilities from the response of GET /version; some providers write the minor version as "35+"."""
        major, minor = (_number(str(version.get(part, ""))) for part in ("major", "minor"))
        return cls(hpa_tolerance=(major, minor) >= (1, 35))


def _number(text: str) -> int:
    digits = re.match(r"[0-9]+", text)
    return int(digits[0]) if digits else 0
