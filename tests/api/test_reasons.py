"""reasons.py documents exactly the reasons that the code reports."""

import ast
from collections.abc import Iterator
from pathlib import Path

from cortex_api import reasons

ROOT = Path(__file__).resolve().parents[2]
REASON_CLASSES = {"StartError", "Failure", "Problem", "Assessment", "Exceeded"}


def reported_reasons() -> Iterator[str]:
    """Yield the first string argument of each call that creates an object with a reason."""
    for package in ("operator/cortex_operator", "runtime/cortex_runtime"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in REASON_CLASSES
                ):
                    texts = [
                        a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
                    ]
                    yield from (text for text in texts[:1] if text.isidentifier())


def identifier_literals() -> set[str]:
    """Return all string literals of the packages that are identifiers."""
    return {
        node.value
        for package in ("operator/cortex_operator", "runtime/cortex_runtime")
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()
    }


def test_every_reported_reason_is_documented() -> None:
    found = set(reported_reasons())
    assert {"HandlerImportError", "Unschedulable", "Ready"} <= found
    assert {reason for reason in found if reasons.lookup(reason) is None} == set()


def test_every_documented_reason_is_used() -> None:
    assert {*reasons.REASONS, *reasons.CANDIDATE_REASONS} - identifier_literals() == set()


def test_refused_objects_of_any_kind_have_a_documented_reason() -> None:
    assert reasons.lookup("HTTPRouteRefused") == reasons.OBJECT_REFUSED
    assert reasons.lookup("Nonsense") is None
