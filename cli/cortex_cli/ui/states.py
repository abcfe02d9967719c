"""The state of an API in one word, and its reason in words, for badges and filters."""

import re
from dataclasses import dataclass
from typing import Literal

from cortex_cli.apis import API
from cortex_cli.diagnosis import EXPECTED_REASONS

State = Literal["failed", "degraded", "waiting", "ready", "off"]
STATES: dict[State, str] = {
    "failed": "Not ready",
    "degraded": "Degraded",
    "waiting": "In progress",
    "ready": "Ready",
    "off": "Off",
}
"""All states, the worst first, with their names on the page."""
_OFF = ("Paused", "ScaledToZero")
_RANK = {state: rank for rank, state in enumerate(STATES)}


@dataclass(frozen=True)
class Condition:
    """The state of an API with its cause. reason: words. message: of the condition that decides the state."""

    state: State
    reason: str
    message: str

    @property
    def rank(self) -> int:
        """0 for the worst state."""
        return _RANK[self.state]


def condition_of(api: API) -> Condition:
    """Return the state of an API from its conditions."""
    ready = api.ready
    reason, message = str(ready.get("reason") or ""), str(ready.get("message") or "")
    if ready["status"] == "Unknown":
        return Condition("waiting", "Not reconciled", message)
    if ready["status"] == "True":
        degraded = degraded_condition(api)
        if degraded is not None:
            return Condition("degraded", words(degraded["reason"]), str(degraded.get("message") or ""))
        if api.is_outdated:
            return Condition(
                "waiting", "Change pending", "the operator has not reconciled the latest change yet"
            )
        return Condition("ready", words(reason), message)
    if reason in _OFF:
        return Condition("off", words(reason), message)
    return Condition("waiting" if reason in EXPECTED_REASONS else "failed", words(reason), message)


def degraded_condition(api: API) -> dict[str, str] | None:
    """Return the condition Degraded if it is true."""
    for condition in api.status.get("conditions") or ():
        if condition["type"] == "Degraded" and condition["status"] == "True":
            return dict(condition)
    return None


def words(reason: str) -> str:
    """Return a reason such as ImagePullFailed as words."""
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", reason).split()
    return " ".join([*parts[:1], *(part if part.isupper() else part.lower() for part in parts[1:])])
