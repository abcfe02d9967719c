"""A documented form of a handler, and the responses that its clients get."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ask:
    """One request and its expected response.

    request: arguments of httpx.request; the default method is POST. answer: the JSON value; text if the content type is not
    JSON.
    """

    request: Mapping[str, Any]
    answer: Any
    status: int = 200

    def check(self, send: Any, url: str) -> None:
        """Send the request and compare. send: httpx.request or a function like it."""
        more = dict(self.request)
        response = send(more.pop("method", "POST"), url, **more)
        is_json = response.headers.get("content-type", "").startswith("application/json")
        answer = response.json() if is_json else response.text
        seen, expected = (response.status_code, answer), (self.status, self.answer)
        assert seen == expected, f"{seen} is not {expected}"


@dataclass(frozen=True)
class Form:
    """One form. docs/compatibility.md has a row for each.

    name: as in the table. releases: the releases that documented it. source: a handler of this form. handler: fields of
    spec.handler.
    """

    name: str
    releases: str
    source: str
    asks: Sequence[Ask]
    handler: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name
