"""Every reason that the code gives is explained, and what is explained is given somewhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

from cortex_api import reasons

ROOT = Path(__file__).resolve().parents[2]
MAKERS = {"StartError", "Failure", "Problem", "Verdict"}


def given() -> Iterator[str]:
    """The first text among the arguments of everything that makes a reason."""
    for package in ("operator/cortex_operator", "runtime/cortex_runtime"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
                    texts = [
                        a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
                    ]
                    yield from (text for text in texts[:1] if text.isidentifier())


def mentioned() -> set[str]:
    """Every text that is one word, wherever it is."""
    return {
        node.value
        for package in ("operator/cortex_operator", "runtime/cortex_runtime")
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()
    }


def test_every_reason_is_explained() -> None:
    found = set(given())
    assert {"HandlerImportError", "Unschedulable", "Ready"} <= found
    assert {reason for reason in found if reasons.of(reason) is None} == set()


def test_nothing_is_explained_that_never_happens() -> None:
    assert set(reasons.REASONS) - mentioned() == set()


def test_whatever_kind_the_cluster_refuses_has_an_explanation() -> None:
    assert reasons.of("HTTPRouteRefused") == reasons.NOT_MADE
    assert reasons.of("Nonsense") is None
