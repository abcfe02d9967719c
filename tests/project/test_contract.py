"""Names, ports and paths that operator and command line share with the runtime are written in cortex_api/contract.py alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_api import contract

ROOT = Path(__file__).parents[2]
PACKAGES = ("operator", "cli")
VALUES = {name: value for name, value in vars(contract).items() if name.isupper()}
PORTS = {value for value in VALUES.values() if isinstance(value, int)}
WORDS = {
    value
    for name, value in VALUES.items()
    if isinstance(value, str)
    and (
        name.endswith(("_VARIABLE", "_FOLDER", "_LABEL", "_ANNOTATION", "_FINALIZER"))
        or value.startswith("/dev/")
    )
} | {contract.TENSORFLOW_SERVING_CONTAINER}
WORD = re.compile(
    r"(?<![\w/-])(" + "|".join(map(re.escape, sorted(WORDS, key=len, reverse=True))) + r")(?![\w-])"
)


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def literals(tree: ast.AST) -> Iterator[ast.Constant]:
    """Constants, except docstrings and other strings that are statements of their own."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose)


def is_shared(value: object) -> bool:
    if isinstance(value, int):
        return value in PORTS
    return isinstance(value, str) and (
        WORD.search(value) is not None or contract.PREFIX in value or value == "api-"
    )


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_repeats_a_value_of_the_contract(path: Path) -> None:
    found = [
        f"line {node.lineno}: {node.value!r}"
        for node in literals(ast.parse(path.read_text()))
        if is_shared(node.value)
    ]
    assert found == [], "import it from cortex_api.contract"


@pytest.mark.parametrize(
    "text",
    [
        'x = "CORTEX_QUEUE_URL"',
        'x = f"set CORTEX_QUEUE_URL to {y}"',
        "port = 8081",
        'name = f"api-{x}"',
        'x = "/etc/cortex/api.json"',
        'x = "cortex.dev/anything"',
    ],
)
def test_a_repeated_value_is_found(text: str) -> None:
    assert any(is_shared(node.value) for node in literals(ast.parse(text)))
