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


def listed(name: str, width: int) -> list[str]:
    """Return the lines of the list of one API on a terminal of some width."""
    condition = {"type": "Ready", "status": "False", "reason": "HandlerImportError", "message": "no"}
    live = {
        "kind": "RealtimeAPI",
        "metadata": {"name": name, "namespace": "default", "generation": 1},
        "spec": {"handler": {}},
        "status": {"observedGeneration": 1, "conditions": [condition]},
    }
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(tables.table([(API(live), Replicas())], with_namespace=False))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_narrow_terminal_omits_columns_instead_of_truncating_them(width: int) -> None:
    header, row = listed("text-classifier" if width > 40 else "iris", width)
    assert {"NAME", "READY", "REASON"} <= {*header.split()}
    assert {"HandlerImportError", "False"} <= {*row.split()}
    assert "…" not in header + row
    assert ("KIND" in header) == (width == 100)


def test_a_name_that_does_not_fit_is_wrapped() -> None:
    name = "a-name-of-exactly-fifty-characters-in-this-cluster"
    _, *rows = listed(name, 60)
    assert "".join(row[:28].split(" ")[0] for row in rows).startswith("a-name-of-exactly-fifty")
    assert len(rows) == 2
    assert "…" not in "".join(rows)
