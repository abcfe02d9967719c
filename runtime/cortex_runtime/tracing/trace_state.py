"""The header `tracestate`, which is passed on as it was received if it is valid.

The parser of opentelemetry-api follows the first version of W3C Trace Context, and rejects keys that the second one allows.
"""

import re
from collections.abc import Sequence

from opentelemetry.trace import TraceState

_MEMBER = re.compile(
    r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS = 32
_LONGEST = 8192


class ReceivedState(TraceState):
    """A received state. Code that changes it gets a `TraceState` with the keys that opentelemetry-api accepts."""

    def __init__(self, members: Sequence[str]) -> None:
        super().__init__([(key, value) for key, _, value in (member.partition("=") for member in members)])
        self._header = ",".join(members)

    def to_header(self) -> str:
        """Return the value of the header."""
        return self._header

    def __bool__(self) -> bool:
        return bool(self._header)


def parse(values: Sequence[str]) -> TraceState:
    """Return the state in the values of all headers `tracestate`; an empty one if any of its members is invalid."""
    members = [member.strip(" \t") for value in values for member in value.split(",")]
    members = [member for member in members if member]
    if (
        len(members) > _MOST_MEMBERS
        or sum(map(len, members)) + len(members) > _LONGEST
        or not all(_MEMBER.fullmatch(member) for member in members)
    ):
        return TraceState()
    return ReceivedState(members)
