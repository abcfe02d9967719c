"""Output of `cortex get NAME`."""

from typing import Any

import pytest
from rich.console import Console, Group

from cortex_cli import tables
from cortex_cli.apis import API, Replicas

FAILURE = {"pod": "p", "reason": "OutOfMemory", "message": "killed", "time": "2026-01-01T00:00:00Z"}


def shown(last_failure: dict[str, Any]) -> str:
    condition = {"type": "Ready", "status": "True", "reason": "Ready", "message": "1 of 1 replicas are ready"}
    live = {
        "kind": "RealtimeAPI",
        "metadata": {"name": "iris", "namespace": "default", "generation": 1},
        "spec": {"handler": {}},
        "status": {"observedGeneration": 1, "conditions": [condition], "lastFailure": last_failure},
    }
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(Group(*tables.detail(API(live), [], Replicas())))
    return captured.get()


@pytest.mark.parametrize(
    ("recovered", "is_shown"), [({}, True), ({"recoveredAt": "2026-01-01T00:05:00Z"}, False)]
)
def test_the_last_failure_is_shown_until_the_api_has_recovered(
    recovered: dict[str, str], is_shown: bool
) -> None:
    text = shown({**FAILURE, **recovered})
    assert ("OutOfMemory: killed, in pod p at 2026-01-01T00:00:00Z" in text) == is_shown
