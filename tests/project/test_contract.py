"""Names, ports and paths on which operator, runtime and command line agree are literals in cortex_api/contract.py alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_api import contract, kinds

ROOT = Path(__file__).parents[2]
PACKAGES = ("crds", "operator", "runtime", "cli")
VALUES = {name: value for name, value in vars(contract).items() if name.isupper()}
PORTS = {value for value in VALUES.values() if isinstance(value, int)}
WORDS = {
    value
    for name, value in VALUES.items()
    if isinstance(value, str)
    and (
        name.endswith(("_VARIABLE", "_FOLDER", "_DIRECTORY", "_PATH", "_LABEL", "_ANNOTATION", "_FINALIZER"))
        or value.startswith("/dev/")
    )
} | {contract.TENSORFLOW_SERVING_CONTAINER}
WORD = re.compile(
    r"(?<![\w/.-])(" + "|".join(map(re.escape, sorted(WORDS, key=len, reverse=True))) + r")(?![\w-])"
)

PORT_NUMBER = re.compile(r"(?<![\w.])(" + "|".join(map(str, sorted(PORTS))) + r")(?![\w.]\w)(?!\w)")


def sources() -> list[Path]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in paths if path not in (Path(contract.__file__), Path(kinds.__file__))]


def literals(tree: ast.AST) -> Iterator[ast.Constant]:
    """Constants, except docstrings and other strings that are statements of their own."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose)


def is_shared(value: object) -> bool:
    if isinstance(value, int):
        return value in PORTS
    return isinstance(value, str) and (
        WORD.search(value) is not None
        or PORT_NUMBER.search(value) is not None
        or contract.PREFIX in value
        or value == "api-"
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
        'x = f"allow port 8081 of {y}"',
        'path == "/readyz"',
    ],
)
def test_a_repeated_value_is_found(text: str) -> None:
    assert any(is_shared(node.value) for node in literals(ast.parse(text)))


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PORTS = {"8090": "of an operator outside a cluster"}
OTHER_VARIABLES = {"CORTEX_API_KEY": "read by the command line", "CORTEX_COMPLETE": "set by click"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_docs_name_the_ports_and_variables_of_the_contract(page: Path) -> None:
    text = page.read_text()
    ports = set(re.findall(r"(?:[Pp]ort |127\.0\.0\.1:|localhost:)([0-9]{4})\b", text))
    assert ports <= {str(port) for port in PORTS} | set(OTHER_PORTS)
    variables = {name for name in re.findall(r"CORTEX_[A-Z_]+", text) if not name.startswith("CORTEX_TEST_")}
    assert variables <= {value for value in VALUES.values() if isinstance(value, str)} | set(OTHER_VARIABLES)
